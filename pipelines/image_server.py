"""`gan-foundry serve`: a registered model over HTTP, which refuses whatever it does not understand.

It takes what `mlflow models serve` takes. MLflow drops parameters that it does not know and cuts
fractions off labels before the model sees them; here the model sees what was sent.
"""

import json
import math
import re
from collections.abc import AsyncIterable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gan_core.errors import FoundryError
from pipelines.request_guard import RequestRules, guard
from pipelines.webserver import HOST

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from pipelines.sampling import OpenedModel

KEYS = ("inputs", "params")
MOST_IMAGES = 10_000  # in one answer, with
MOST_VALUES = 20_000_000  # of all pixels and channels together
MOST_BYTES = 1_000_000  # of a question
STOP_SECONDS = 5  # for answers that are under way
EVERYTHING = re.compile("/")  # it has no pages


def serve_model(model: str, port: int, tell: Callable[[str], None]) -> None:
    """Answer on 127.0.0.1 until Ctrl-C.

    Args:
        model: As `gan-foundry sample` takes it.
        port: To listen at.
        tell: Shows people one line: which model, and where.

    Raises:
        FoundryError: There is no such model, or the port is taken.
    """
    from pipelines.sampling import open_model
    from pipelines.ui import require_free

    require_free(port, "--port")
    opened = open_model(model)
    app = build_app(opened)
    tell(f"{opened.title} at http://{HOST}:{port}/invocations, Ctrl-C stops")
    uvicorn.run(
        app,
        host=HOST,
        port=port,
        log_level="warning",
        # Somebody may have asked for many images and read none.
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def build_app(opened: "OpenedModel") -> "ASGIApp":
    """The server's app, behind the guard of the other servers.

    `POST /invocations` with `{"inputs": [3, 1], "params": {"seed": 7}}` answers with
    `{"predictions": …}`: uint8, shape (n, height, width, channels), as nested lists. A question
    that is not understood is answered with status 400 and `{"message": …}`. `GET /model` answers
    with `{"model": "digits", "version": 3}`.
    """
    from mlflow.exceptions import MlflowException

    from gan_core.serving import GeneratorModel

    generator = opened.generator
    model = GeneratorModel(generator)

    async def invocations(request: Request) -> Response:
        try:
            body = await read_body(request.stream())
            labels, params = read_question(body, generator.config.shape)
            images = await run_in_threadpool(model.predict, labels, params)
        except FoundryError as error:
            return JSONResponse({"message": str(error)}, status_code=400)
        except MlflowException as error:
            status = error.get_http_status_code()
            return JSONResponse({"message": error.message}, status_code=status)
        return StreamingResponse(_predictions(images), media_type="application/json")

    async def which(_: Request) -> Response:
        return JSONResponse({"model": opened.name, "version": opened.version})

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    routes = [
        Route("/invocations", invocations, methods=["POST"]),
        Route("/model", which, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
    ]
    return guard(Starlette(routes=routes), RequestRules(EVERYTHING))


def _predictions(images: np.ndarray) -> Iterator[str]:
    """The answer's JSON, image by image: as a whole it takes fifty bytes of memory a value.

    Between two images other threads, and so other requests, have their turn.
    """
    before = '{"predictions":['
    for image in images:
        yield before + json.dumps(image.tolist(), separators=(",", ":"))
        before = ","
    yield "]}"


async def read_body(parts: AsyncIterable[bytes]) -> bytes:
    """A request's body, read no further than it may be long.

    Raises:
        FoundryError: It is too large.
    """
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > MOST_BYTES:
            raise FoundryError(f"the body is too large; send at most {MOST_BYTES} bytes.")
    return bytes(body)


def read_question(
    body: bytes, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels and parameters as they were sent; what they may be is the model's to say.

    Args:
        body: JSON.
        image_shape: Height, width and channels of one image of the answer.

    Raises:
        FoundryError: The body is no JSON, not of this form, or asks for too much.
    """
    form = '{"inputs": [3, 1, 4], "params": {"seed": 7, "truncation": 0.8}}'
    try:
        question = json.loads(body)
    except (ValueError, RecursionError):  # the latter of many brackets
        raise FoundryError(f"the body is no JSON that can be read; send {form}.") from None
    if not isinstance(question, dict) or "inputs" not in question:
        raise FoundryError(f"the body has no inputs; send {form}.")
    if unknown := sorted(question.keys() - set(KEYS)):
        raise FoundryError(f"{unknown[0]!r} is not known; use {' and '.join(KEYS)}.")
    labels, params = question["inputs"], question.get("params") or {}
    if not isinstance(labels, list) or not all(_is_number(label) for label in labels):
        raise FoundryError(f"inputs are {labels!r:.80}, but they must be a list of labels.")
    if not isinstance(params, dict):
        raise FoundryError(f"params are {params!r:.80}, but they must be an object.")
    most = max(1, min(MOST_IMAGES, MOST_VALUES // math.prod(image_shape)))
    if len(labels) > most:
        height, width, channels = image_shape
        raise FoundryError(
            f"{len(labels)} images of {height}x{width}x{channels} are asked for; ask for {most} at "
            "most."
        )
    return np.array(labels), params


def _is_number(label: object) -> bool:
    return isinstance(label, int | float) and not isinstance(label, bool)
