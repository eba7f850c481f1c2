"""A model over HTTP: what it answers, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from gan_core.generator import ReleasedGenerator
from gan_core.serving import GeneratorModel
from pipelines.image_server import MOST_BYTES, MOST_IMAGES, build_app
from pipelines.sampling import open_generator
from tests.pipelines.models import release_generator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> ReleasedGenerator:
    """Of two classes."""
    return ReleasedGenerator.load(release_generator(tmp_path_factory.mktemp("released") / "model"))


@pytest.fixture(scope="module")
def client(generator: ReleasedGenerator) -> TestClient:
    return TestClient(build_app(GeneratorModel(generator)), base_url="http://127.0.0.1:5001")


def refusal(client: TestClient, question: Any) -> str:
    """The sentence with which a question is refused."""
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    answer = client.post("/invocations", content=body)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["message"])


def test_the_images_are_those_of_the_generator(
    client: TestClient, generator: ReleasedGenerator
) -> None:
    question = {"inputs": [1, 0, 1], "params": {"seed": 7, "truncation": 0.8}}
    answer = client.post("/invocations", json=question)
    expected = generator.sample(3, seed=7, labels=[1, 0, 1], truncation=0.8)
    assert np.array_equal(np.array(answer.json()["predictions"], np.uint8), expected)
    without = client.post("/invocations", json={"inputs": [1]})
    assert np.array_equal(without.json()["predictions"], generator.sample(1, labels=[1]))
    assert client.get("/health").text == "ok"


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"inputs": [1], "params": {"sed": 7}}, "there is no parameter 'sed'; use seed and"),
        ({"inputs": [1.5]}, "type float64, but 1 integers are needed"),
        ({"inputs": [2]}, "the label 2 is outside the 2 classes"),
        ({"inputs": [-1]}, "the label -1 is outside the 2 classes"),
        ({"inputs": [True]}, "they must be a list of labels"),
        ({"inputs": ["1"]}, "they must be a list of labels"),
        ({"inputs": [[1]]}, "they must be a list of labels"),
        ({"inputs": 1}, "they must be a list of labels"),
        ({"inputs": []}, "the number of images is 0"),
        ({"inputs": [10**30]}, "integers are needed"),
        ({"inputs": [0] * (MOST_IMAGES + 1)}, f"ask for {MOST_IMAGES} at most"),
        ({"inputs": [1], "params": {"seed": 7.0}}, "seed is 7.0, but it must be an integer"),
        ({"inputs": [1], "params": {"seed": "7"}}, "seed is '7', but it must be an integer"),
        ({"inputs": [1], "params": {"seed": True}}, "seed is True, but it must be an integer"),
        ({"inputs": [1], "params": {"seed": -1}}, "the seed is -1"),
        ({"inputs": [1], "params": {"truncation": 0}}, "truncation is 0"),
        ({"inputs": [1], "params": {"truncation": None}}, "it must be a number"),
        ({"inputs": [1], "params": [7]}, "params are [7], but they must be an object"),
        ({"inputs": [1], "seed": 7}, "'seed' is not known; use inputs and params"),
        ({"params": {}}, "the body has no inputs"),
        ([1], "the body has no inputs"),
        (b"inputs=1", "the body is no JSON"),
        (b" " * (MOST_BYTES + 1), f"send at most {MOST_BYTES}"),
    ],
)
def test_what_is_unknown_out_of_range_or_of_a_wrong_type_is_refused_with_a_sentence(
    client: TestClient, question: Any, words: str
) -> None:
    assert words in refusal(client, question)


def test_pages_of_other_sites_get_no_answer(client: TestClient) -> None:
    answer = client.post(
        "/invocations", json={"inputs": [1]}, headers={"origin": "http://evil.example"}
    )
    assert answer.status_code == 403
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_a_released_folder_is_what_a_path_names(tmp_path: Path) -> None:
    assert open_generator(str(release_generator(tmp_path / "model"))).config.classes == 2
