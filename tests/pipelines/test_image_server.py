"""A model over HTTP: what it answers, and what it refuses."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator
from pipelines.image_server import (
    MOST_BYTES,
    MOST_IMAGES,
    MOST_VALUES,
    build_app,
    read_body,
    read_question,
)
from pipelines.sampling import OpenedModel, open_model
from tests.pipelines.models import release_generator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> ReleasedGenerator:
    """Of two classes."""
    return ReleasedGenerator.load(release_generator(tmp_path_factory.mktemp("released") / "model"))


@pytest.fixture(scope="module")
def client(generator: ReleasedGenerator) -> TestClient:
    return TestClient(
        build_app(OpenedModel(generator, "tiny", 3)), base_url="http://127.0.0.1:5001"
    )


def refusal(client: TestClient, question: Any) -> str:
    """The sentence with which a question is refused."""
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    answer = client.post("/invocations", content=body)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["message"])


async def answer_parts(app: ASGIApp, question: Any) -> list[bytes]:
    """What the app sends, as it sends it; the test client joins it."""
    parts: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(question).encode()}

    async def send(message: Message) -> None:
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "method": "POST",
        "path": "/invocations",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }
    await app(scope, receive, send)
    return parts


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
        ({"inputs": "\ud800"}, r"inputs are '\ud800', but they must be a list of labels"),
        ({"inputs": []}, "the number of images is 0"),
        ({"inputs": [10**30]}, "integers are needed"),
        ({"inputs": [0] * (MOST_IMAGES + 1)}, f"ask for {MOST_IMAGES} at most"),
        ({"inputs": [1], "params": {"seed": 7.0}}, "seed is 7.0, but it must be an integer"),
        ({"inputs": [1], "params": {"seed": "7"}}, "seed is '7', but it must be an integer"),
        ({"inputs": [1], "params": {"seed": True}}, "seed is True, but it must be an integer"),
        ({"inputs": [1], "params": {"seed": -1}}, "the seed is -1"),
        ({"inputs": [1], "params": {"truncation": 0}}, "truncation is 0"),
        ({"inputs": [1], "params": {"truncation": 10**400}}, "truncation is 1000"),
        ({"inputs": [1], "params": {"truncation": None}}, "it must be a number"),
        ({"inputs": [1], "params": [7]}, "params are [7], but they must be an object"),
        ({"inputs": [1], "seed": 7}, "'seed' is not known; use inputs and params"),
        ({"params": {}}, "the body has no inputs"),
        ([1], "the body has no inputs"),
        (b"inputs=1", "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        (b" " * (MOST_BYTES + 1), f"send at most {MOST_BYTES}"),
    ],
)
def test_what_is_unknown_out_of_range_or_of_a_wrong_type_is_refused_with_a_sentence(
    client: TestClient, question: Any, words: str
) -> None:
    assert words in refusal(client, question)


def test_large_images_are_fewer_and_one_is_always_answered() -> None:
    shape = (1024, 1024, 3)
    with pytest.raises(FoundryError, match="7 images of 1024x1024x3 are asked for; ask for 6 at"):
        read_question(json.dumps({"inputs": [0] * 7}).encode(), shape)
    labels, _ = read_question(b'{"inputs": [3]}', (1, 1, 2 * MOST_VALUES))
    assert labels.tolist() == [3]


def test_a_body_is_not_read_further_than_it_may_be_long() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MOST_BYTES // 10)

    with pytest.raises(FoundryError, match="the body is too large"):
        asyncio.run(read_body(endless()))


def test_an_answer_is_sent_image_by_image(generator: ReleasedGenerator) -> None:
    """Its JSON as a whole would take all memory, and keep other requests waiting."""
    parts = asyncio.run(
        answer_parts(build_app(OpenedModel(generator, "tiny", 3)), {"inputs": [0, 1, 1]})
    )
    assert [part.count(b"[[[") for part in parts if part] == [1, 1, 1, 0]
    assert len(json.loads(b"".join(parts))["predictions"]) == 3


def test_pages_of_other_sites_get_no_answer(client: TestClient) -> None:
    answer = client.post(
        "/invocations", json={"inputs": [1]}, headers={"origin": "http://evil.example"}
    )
    assert answer.status_code == 403
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_a_released_folder_is_what_a_path_names(tmp_path: Path) -> None:
    folder = str(release_generator(tmp_path / "model"))
    opened = open_model(folder)
    assert opened.generator.config.classes == 2
    assert (opened.title, opened.version) == (folder, None)


def test_programs_can_ask_which_version_answers(client: TestClient) -> None:
    assert client.get("/model").json() == {"model": "tiny", "version": 3}
