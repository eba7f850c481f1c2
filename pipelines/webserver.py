"""The two servers of `gan-foundry ui`, each in a process: their own apps behind the request guard.

`python -m pipelines.webserver dagster --port 3000` and the same with `mlflow` do what
`dagster-webserver` and `mlflow server` do, which offer no place for a guard: Dagster's command
makes its app itself, and MLflow takes another app only from an installed plugin. MLflow's own
checks let any port of this machine in, and any origin in a GET.
"""

import os
import re

import click
import uvicorn
from starlette.types import ASGIApp

from pipelines import home
from pipelines.request_guard import RequestRules, guard

HOST = "127.0.0.1"
# A page that is open keeps its connection; stopping does not wait for it longer.
CLOSE_SECONDS = 5
# As dagster-webserver has them.
STATEMENT_MILLISECONDS, RECYCLE_SECONDS, MOST_CONNECTIONS = 15_000, 3600, 20
POLL_MILLISECONDS = 2000

DAGSTER_PROGRAMMATIC = re.compile(
    r"/graphql|/report_asset_|/logs/|/download_debug/|/(dagit/)?notebook"
)
MLFLOW_PROGRAMMATIC = re.compile(r"/graphql|/(ajax-)?api/|/v1/|/get-artifact|/model-versions/")
# MLflow's assistant runs a coding agent with a shell, for whoever reaches the port; and MLflow as a
# gateway to language models is no part of this.
MLFLOW_CLOSED = re.compile(r"/(ajax-)?api/[23]\.0/mlflow/(assistant|gateway)\b|/gateway\b")
# MLflow's pages read with POST where a question is long; its GraphQL has no mutation but a test's.
MLFLOW_READING_POSTS = re.compile(
    r"/graphql|/(ajax-)?api/[23]\.0/?mlflow/("
    r"(runs|experiments|logged-models|datasets|issues|traces|prompt-optimization/jobs)/search"
    r"|experiments/search-datasets|registered-models/get-latest-versions"
    r"|traces/(metrics|batchGetInfos|calculate-filter-correlation))"
)

port_option = click.option("--port", type=int, required=True)
read_only_option = click.option("--read-only", is_flag=True)


@click.group()
def main() -> None:
    """One of the servers of `gan-foundry ui`."""


@main.command()
@port_option
@read_only_option
def dagster(port: int, read_only: bool) -> None:
    """Dagster's pages; read-only is Dagster's own mode, which refuses every mutation by itself."""
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    target = WorkspaceFileTarget(paths=[str(home.WORKSPACE_FILE)])
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, RECYCLE_SECONDS, MOST_CONNECTIONS)
        with WorkspaceProcessContext(instance, target, __version__, read_only=read_only) as context:
            app = create_app_from_workspace_process_context(
                context, live_data_poll_rate=POLL_MILLISECONDS
            )
            _serve(guard(app, RequestRules(DAGSTER_PROGRAMMATIC)), port)


@main.command()
@port_option
@read_only_option
def mlflow(port: int, read_only: bool) -> None:
    """MLflow's server on the home's own database and artifacts."""
    rules = RequestRules(MLFLOW_PROGRAMMATIC, MLFLOW_CLOSED, read_only, MLFLOW_READING_POSTS)
    _serve(guard(_mlflow_app(), rules), port)


def _mlflow_app() -> ASGIApp:
    """MLflow's app; it reads from the environment what `mlflow server` would have put there."""
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: home.tracking_uri(),
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: home.artifacts_folder().as_uri(),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it takes 2.5 GB, and nothing here uses it
    }
    from mlflow.server.fastapi_app import app

    return app


def _serve(app: ASGIApp, port: int) -> None:
    uvicorn.run(
        app, host=HOST, port=port, log_level="warning", timeout_graceful_shutdown=CLOSE_SECONDS
    )


if __name__ == "__main__":
    main()
