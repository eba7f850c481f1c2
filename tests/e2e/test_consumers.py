"""Programs that fetch a registered generator, each in an environment of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gan_core.generator import ReleasedGenerator
from tests.conftest import PROJECT, copy_project, subprocess_environment
from tests.e2e.bare_environment import make_environment, run_python
from tests.e2e.conftest import FinishedRun
from tests.gan_core.trainings import wait_until
from tests.running_ui import GAN_FOUNDRY

pytestmark = pytest.mark.slow

LOADER = """
import hashlib, importlib.util, sys
for name in ("dagster", "torchvision", "pooch"):
    assert importlib.util.find_spec(name) is None, name
from pipelines.command import main
try:
    main()
except SystemExit as end:
    assert end.code == 2
else:
    raise SystemExit("a command line came without its packages")
from gan_core import load_generator
generator = load_generator("models:/digits@champion")
images = generator.sample(16, seed=7)
assert images.shape == (16, 16, 16, 1) and images.dtype == "uint8", (images.shape, images.dtype)
assert (generator.sample(16, seed=7) == images).all()
assert (generator.sample(100, seed=7)[:16] == images).all()
assert (generator.sample(3, seed=7) == images[:3]).all()
assert (generator.sample(16, seed=8) != images).any()
labels = [i % 10 for i in range(16)]
print(hashlib.sha256(generator.sample(16, seed=7, labels=labels).tobytes()).hexdigest())
"""

PYFUNC = """
import hashlib, importlib.util
for name in ("gan_core", "pipelines"):
    assert importlib.util.find_spec(name) is None, name
import mlflow, numpy
model = mlflow.pyfunc.load_model("models:/digits@champion")
labels = numpy.arange(16, dtype="int64") % 10
images = model.predict(labels, params={"seed": 7, "truncation": 1.0})
assert images.shape == (16, 16, 16, 1) and images.dtype == "uint8", (images.shape, images.dtype)
assert (model.predict(labels, params={"seed": 8}) != images).any()
assert (model.predict(labels) != images).any()
for wrong in (numpy.array([10]), numpy.array([-1])):
    try:
        model.predict(wrong)
    except Exception as error:
        assert "outside the 10 classes" in str(error), error
    else:
        raise SystemExit("a label outside the classes was taken")
print(hashlib.sha256(images.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def images_by_load_generator(
    finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Runs LOADER from the built wheel with its base dependencies alone."""
    folder = tmp_path_factory.mktemp("consumer")
    source = copy_project(folder / "source")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, source], check=True, capture_output=True)
    (wheel,) = folder.glob("gan_foundry-*.whl")
    base = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    python = make_environment(folder / "environment", base)
    (site_packages,) = (folder / "environment" / "lib").glob("*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    return run_python(python, LOADER, folder, MLFLOW_TRACKING_URI=finished_run.tracking_uri)


def test_the_wheel_with_its_base_dependencies_loads_and_samples(
    images_by_load_generator: str,
) -> None:
    assert len(images_by_load_generator.strip()) == 64


def test_pyfunc_without_the_project_and_without_pickle_gives_the_same_images(
    finished_run: FinishedRun, images_by_load_generator: str, tmp_path: Path
) -> None:
    (requirements,) = finished_run.home.glob(
        "mlflow/artifacts/digits/models/*/artifacts/requirements.txt"
    )
    python = make_environment(tmp_path / "environment", requirements.read_text().split())
    images = run_python(
        python,
        PYFUNC,
        tmp_path,
        MLFLOW_TRACKING_URI=finished_run.tracking_uri,
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    )

    assert images == images_by_load_generator


@pytest.fixture(scope="module")
def served(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve`, started as a person would start it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve"]
    options = ["--model-uri", "models:/digits@champion", "--env-manager", "local"]
    folder = tmp_path_factory.mktemp("served")
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [*command, *options, "--port", str(port)],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{command[0].parent}:{os.environ['PATH']}",  # as in the environment
                "MLFLOW_TRACKING_URI": finished_run.tracking_uri,
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while curl(f"{address}/ping")[0] != 200:
            assert server.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < deadline, (folder / "log.txt").read_text()
            time.sleep(0.5)
        yield address
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def curl(address: str, body: str | None = None) -> tuple[int, str]:
    """Status and answer of a request."""
    command = ["curl", "--silent", "--max-time", "60", "--write-out", "\n%{http_code}", address]
    if body is not None:
        command += ["--header", "Content-Type: application/json", "--data", body]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    text, _, status = answer.rpartition("\n")
    return int(status), text


def test_over_http_come_the_same_images(finished_run: FinishedRun, served: str) -> None:
    labels = [3, 1, 4, 1, 5]
    body = {"inputs": labels, "params": {"seed": 7, "truncation": 0.5}}
    status, answer = curl(f"{served}/invocations", json.dumps(body))
    assert status == 200, answer
    (weights,) = finished_run.home.glob("store/digits/generator/*/generator")
    expected = ReleasedGenerator.load(weights).sample(5, seed=7, labels=labels, truncation=0.5)
    np.testing.assert_array_equal(np.array(json.loads(answer)["predictions"]), expected)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"inputs": [10]}', "the label 10 is outside the 10 classes of digits; use 0 to 9."),
        ('{"inputs": ["one"]}', "invalid literal for int()"),
        ('{"inputs": [[1, 2]]}', "shape"),
        ('{"inputs": [1], "params": {"seed": -1}}', "the seed is -1, but it must be from 0"),
        ('{"inputs": [1], "params": {"seed": "x"}}', "seed"),
        ('{"inputs": [1], "params": {"truncation": 2}}', "truncation is 2, but it must be above 0"),
        ('{"labels": [1]}', "inputs"),
        ("one digit, please", "JSON"),
    ],
)
def test_over_http_wrong_inputs_are_refused(served: str, body: str, said: str) -> None:
    status, answer = curl(f"{served}/invocations", body)
    assert status == 400, answer
    assert said in json.loads(answer)["message"]


def test_our_own_server_gives_the_same_images_and_refuses_what_mlflows_lets_pass(
    finished_run: FinishedRun, free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = subprocess.Popen(
        [GAN_FOUNDRY, "serve", "digits", "--port", str(port)],
        env=subprocess_environment(DAGSTER_HOME=str(finished_run.home)),
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: curl(f"{address}/health")[0] == 200, "the server's start", 60)
        status, answer = curl(f"{address}/invocations", '{"inputs": [3], "params": {"seed": 7}}')
        assert status == 200, answer
        assert json.loads(curl(f"{address}/model")[1]) == {"model": "digits", "version": 1}
        (weights,) = finished_run.home.glob("store/digits/generator/*/generator")
        expected = ReleasedGenerator.load(weights).sample(1, seed=7, labels=[3])
        np.testing.assert_array_equal(np.array(json.loads(answer)["predictions"]), expected)
        for body in ('{"inputs": [1.5]}', '{"inputs": [1], "params": {"sed": 7}}'):
            status, answer = curl(f"{address}/invocations", body)
            assert status == 400, answer
        # Somebody asks for many images and reads none.
        body = json.dumps({"inputs": [0] * 3000})
        question = f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        question += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(question.encode())
            client.recv(1)  # the answer is under way
            server.terminate()
            server.wait(20)
    finally:
        server.kill()
        server.wait()
