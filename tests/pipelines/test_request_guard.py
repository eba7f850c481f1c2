"""Which requests reach the servers of `gan-foundry ui`."""

import re

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from pipelines.request_guard import RequestRules, guard
from pipelines.webserver import (
    DAGSTER_PROGRAMMATIC,
    MLFLOW_CLOSED,
    MLFLOW_PROGRAMMATIC,
    MLFLOW_READING_POSTS,
)

OWN = "http://127.0.0.1:3000"
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FOREIGN_PAGES = ["http://evil.example", "http://127.0.0.1:8888", "http://localhost:3000", "null"]


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.method} answered")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def client(rules: RequestRules | None = None, address: str = OWN) -> TestClient:
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(
        routes=[
            WebSocketRoute("/graphql", talk),
            Route("/{path:path}", answer, methods=methods),
        ]
    )
    rules = rules or RequestRules(programmatic=re.compile("/graphql"))
    return TestClient(guard(app, rules), base_url=address)


@pytest.mark.parametrize("address", [OWN, "http://localhost:3000", "http://localhost:8080"])
def test_own_pages_and_programs_are_answered(address: str) -> None:
    own = client(address=address)
    assert own.get("/runs").status_code == 200  # a program sends no headers of a browser
    assert own.post("/graphql").text == "POST answered"
    page = {"origin": address, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert own.post("/graphql", headers=page).status_code == 200
    assert own.get("/runs", headers={"sec-fetch-site": "none", **LINK}).status_code == 200
    headers = {"host": address.removeprefix("http://"), "origin": address}
    with own.websocket_connect("/graphql", headers=headers) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "192.168.0.5:3000", ""]
)
def test_a_foreign_host_is_refused_so_that_no_name_can_be_bound_to_this_machine(host: str) -> None:
    refused = client().get("/", headers={"host": host})
    assert (refused.status_code, refused.text) == (400, "Invalid host header")
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client().websocket_connect("/graphql", headers={"host": host}),
    ):
        pass
    assert caught.value.status_code == 400


@pytest.mark.parametrize("origin", FOREIGN_PAGES)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_page_of_another_origin_is_refused(origin: str, method: str) -> None:
    refused = client().request(method, "/graphql", headers={"origin": origin})
    assert refused.status_code == 403
    assert refused.text == f"Refused: the page {origin} is another origin than this server."
    assert not [name for name in refused.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", FOREIGN_PAGES)
def test_a_web_socket_of_a_page_of_another_origin_is_refused(origin: str) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client().websocket_connect(
            "/graphql", headers={"host": "127.0.0.1:3000", "origin": origin}
        ),
    ):
        pass
    assert caught.value.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/runs", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", "/runs", {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}),
        ("POST", "/runs", LINK),
        ("GET", "/graphql", LINK),
        ("GET", "//graphql", LINK),
        ("GET", "/runs", {}),
    ],
)
def test_another_site_can_neither_embed_nor_post_nor_lead_to_what_is_for_programs(
    site: str, method: str, path: str, headers: dict[str, str]
) -> None:
    refused = client().request(method, OWN + path, headers={"sec-fetch-site": site, **headers})
    assert refused.status_code == 403
    assert "may link to pages here" in refused.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("programmatic", "path"),
    [
        (DAGSTER_PROGRAMMATIC, "/graphql"),
        (DAGSTER_PROGRAMMATIC, "/report_asset_materialization/digits/generator"),
        (DAGSTER_PROGRAMMATIC, "/report_asset_check/digits/generator"),
        (DAGSTER_PROGRAMMATIC, "/report_asset_observation/digits/generator"),
        (DAGSTER_PROGRAMMATIC, "/logs/storage/1/compute_logs/x.err"),
        (DAGSTER_PROGRAMMATIC, "/download_debug/1"),
        (DAGSTER_PROGRAMMATIC, "/notebook"),
        (DAGSTER_PROGRAMMATIC, "/dagit/notebook"),
        (MLFLOW_PROGRAMMATIC, "/graphql"),
        (MLFLOW_PROGRAMMATIC, "/api/2.0/mlflow/runs/get?run_id=1"),
        (MLFLOW_PROGRAMMATIC, "/ajax-api/2.0/mlflow/runs/get?run_id=1"),
        (MLFLOW_PROGRAMMATIC, "/api/2.0/mlflow-artifacts/artifacts/1/page.html"),
        (MLFLOW_PROGRAMMATIC, "/v1/traces"),
        (MLFLOW_PROGRAMMATIC, "/get-artifact?path=page.html&run_uuid=1"),
        (MLFLOW_PROGRAMMATIC, "/model-versions/get-artifact?path=page.html&name=digits&version=1"),
    ],
)
def test_a_link_from_another_site_leads_to_no_interface_for_programs_artifacts_or_logs(
    programmatic: re.Pattern[str], path: str, site: str
) -> None:
    server = client(RequestRules(programmatic))
    refused = server.get(path, headers={"sec-fetch-site": site, **LINK})
    assert refused.status_code == 403
    assert "may link to pages here" in refused.text
    assert server.get(path).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("programmatic", [DAGSTER_PROGRAMMATIC, MLFLOW_PROGRAMMATIC])
def test_a_link_from_another_site_leads_to_a_page(programmatic: re.Pattern[str], site: str) -> None:
    server = client(RequestRules(programmatic))
    for path in ("/", "/runs/1", "/assets/digits/generator"):
        assert server.get(path, headers={"sec-fetch-site": site, **LINK}).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/graphql?query=mutation{x}",
        "/graphql?%71uery=mutation{x}",
        "/graphql?operationName=x&%71uer%79=mutation{x}",
        "/graphql?query",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_query_in_an_address_is_refused_for_browsers_that_do_not_tell_the_site(
    method: str, address: str
) -> None:
    refused = client().request(method, address)
    assert refused.status_code == 403
    assert refused.text == "Refused: send GraphQL queries in the body of a POST."


def test_queries_in_the_body_and_the_page_for_trying_them_are_answered() -> None:
    assert client().post("/graphql", json={"query": "{version}"}).status_code == 200
    assert client().post("/graphql?operationName=query", json={"query": "{x}"}).status_code == 200
    assert client().get("/graphql").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("PUT", "/ajax-api/3.0/mlflow/assistant/config"),
        ("GET", "/ajax-api/3.0/mlflow/assistant/providers"),
        ("POST", "/gateway/x/mlflow/invocations"),
        ("POST", "/api/3.0/mlflow/gateway/secrets/create"),
        ("GET", "/ajax-api/3.0/mlflow/gateway/endpoints/list"),
        ("POST", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("GET", "//ajax-api/3.0/mlflow/gateway/secrets/list"),
        ("GET", "/ajax-api//3.0/mlflow/gateway/secrets/list"),
    ],
)
def test_mlflows_assistant_and_gateway_are_closed_to_its_own_pages_and_to_programs_too(
    method: str, path: str
) -> None:
    own = client(RequestRules(MLFLOW_PROGRAMMATIC, MLFLOW_CLOSED))
    for headers in ({}, {"origin": OWN, "sec-fetch-site": "same-origin"}):
        refused = own.request(method, OWN + path, headers=headers)
        assert refused.status_code == 403
        assert refused.text == "Refused: this part of the server is closed."


def test_no_path_of_the_installed_mlflows_assistant_or_gateway_is_left_open() -> None:
    from mlflow.server import app as flask_app
    from mlflow.server.assistant.api import assistant_router
    from mlflow.server.gateway_api import gateway_router

    paths = {rule.rule for rule in flask_app.url_map.iter_rules()}
    named = {path for path in paths if re.search("gateway|assistant", path)}
    assert "/api/3.0/mlflow/gateway/secrets/create" in named
    routers = (assistant_router, gateway_router)
    routed = [route.path for router in routers for route in router.routes]
    assert len(routed) > 10
    assert [path for path in [*named, *routed] if not MLFLOW_CLOSED.match(path)] == []
    # What the pages of trainings and models need is not closed with them.
    assert {path for path in paths - named if MLFLOW_CLOSED.match(path)} == set()


MLFLOW_READ_ONLY = RequestRules(
    MLFLOW_PROGRAMMATIC, read_only=True, reading_posts=MLFLOW_READING_POSTS
)
READS = [
    ("GET", "/"),
    ("GET", "/ajax-api/2.0/mlflow/runs/get?run_id=1"),
    ("POST", "/graphql"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search"),
    ("POST", "/api/2.0/mlflow/experiments/search"),
    ("POST", "/ajax-api/2.0mlflow/experiments/search-datasets"),
    ("POST", "/ajax-api/2.0/mlflow/logged-models/search"),
    ("POST", "/ajax-api/3.0/mlflow/traces/search"),
]
CHANGES = [
    ("POST", "/ajax-api/2.0/mlflow/runs/delete"),
    ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/ajax-api/2.0/mlflow/registered-models/alias"),
    ("DELETE", "/ajax-api/2.0/mlflow/registered-models/delete"),
    ("PATCH", "/ajax-api/2.0/mlflow/model-versions/update"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search/../delete"),
]


@pytest.mark.parametrize(("method", "path"), READS)
def test_read_only_still_reads(method: str, path: str) -> None:
    assert client(MLFLOW_READ_ONLY).request(method, path).status_code == 200


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_read_only_refuses_changes(method: str, path: str) -> None:
    refused = client(MLFLOW_READ_ONLY).request(method, path)
    assert refused.status_code == 403
    assert refused.text.startswith("Refused: this server is read-only")
    assert client().request(method, path).status_code == 200
