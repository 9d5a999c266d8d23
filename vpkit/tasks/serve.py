"""A fitted task behind an interface: HTTP, one image a request, requests that come together answered together."""

import asyncio
import io
import secrets
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

from vpkit.datasets.batches import resized
from vpkit.datasets.source import read_image
from vpkit.tasks.task import FittedTask, probabilities_of

__all__ = ["check_exposed", "service"]

MOST_PIXELS = 50_000_000  # of an image, as it says itself before it is decoded
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_exposed(host: str, token: str | None) -> None:
    """Refuse to listen to other machines without a token.

    Raises:
        ValueError: a host that is not this machine's own, and no token.
    """
    if host not in _LOOPBACK and not token:
        raise ValueError(
            f"--host {host} can be reached from other machines: give --token (or $VPKIT_TOKEN), which requests must "
            "then send, or leave --host at 127.0.0.1"
        )


def service(
    task: FittedTask, token: str | None = None, most_bytes: int = 10_000_000, batch_size: int = 64, waiting: int = 1024
) -> Any:
    """A FastAPI application: `POST /predict` with an image, `GET /health`, and its description at `/docs`.

    Args:
        task: what answers.
        token: requests must send it as `Authorization: Bearer TOKEN`; None lets everyone in.
        most_bytes: of a request; a larger one gets 413.
        batch_size: images that go through the network together, at most.
        waiting: requests that may wait; one more gets 503.

    Raises:
        ImportError: FastAPI is not installed.
    """
    try:
        from fastapi import Depends, FastAPI, File, Header, HTTPException, Request, UploadFile
        from fastapi.responses import JSONResponse
    except ImportError as error:
        raise ImportError("vpkit serve needs FastAPI: pip install 'vpkit[serve]'") from error

    queue: asyncio.Queue = asyncio.Queue(waiting)

    @asynccontextmanager
    async def alive(app):
        worker = asyncio.create_task(_answer(task, queue, batch_size))
        yield
        worker.cancel()

    async def known(authorization: str | None = Header(default=None)):
        given = (authorization or "").removeprefix("Bearer ")
        if token and not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "this service wants a token: Authorization: Bearer TOKEN")

    app = FastAPI(title=f"vpkit: {task.name}", lifespan=alive, dependencies=[Depends(known)])

    @app.middleware("http")
    async def limited(request: Request, go_on):
        told = request.headers.get("content-length", "")
        if request.method == "POST" and (not told.isdigit() or int(told) > most_bytes):
            reason = f"expected a Content-Length of at most {most_bytes:,} bytes, this request has {told or 'none'}"
            return JSONResponse({"detail": reason}, 413 if told.isdigit() else 411)
        return await go_on(request)

    @app.get("/health")
    async def health() -> dict:
        """The service is there, and these are its classes."""
        return {"status": "ok", "method": task.name, "model": task.settings["model"], "class_names": task.class_names}

    @app.post("/predict")
    async def predict(image: UploadFile = File(description="JPEG, PNG, WebP, ...")) -> dict:  # noqa: B008
        """The class of one image, and the probability of every class."""
        content = await image.read()
        try:
            pixels = await asyncio.to_thread(pixels_of, content, task.settings["read_size"])
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        answer = asyncio.get_running_loop().create_future()
        try:
            queue.put_nowait((pixels, answer))
        except asyncio.QueueFull:
            raise HTTPException(503, f"{waiting} images are waiting already: try again later") from None
        probabilities = await answer
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return {
            "predicted": task.class_names[best], "probability": probabilities[best],
            "probabilities": dict(zip(task.class_names, probabilities, strict=True)),
        }  # fmt: skip

    return app


def pixels_of(content: bytes, size: int) -> np.ndarray:
    """The bytes of an image file to (size, size, 3) uint8, as `vpkit predict` reads it.

    Raises:
        ValueError: what is no image, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise ValueError(f"the image is too large: {error}") from error
    except (OSError, SyntaxError, ValueError):
        width = height = 0  # `read_image` says it in words
    if width * height > MOST_PIXELS:
        raise ValueError(f"the image has {width} x {height} pixels: expected at most {MOST_PIXELS:,}")
    try:
        return read_image(io.BytesIO(content), size)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"the image cannot be read: {str(error).partition(': ')[2] or error}") from error


async def _answer(task: FittedTask, queue: asyncio.Queue, batch_size: int) -> None:
    """Take what is waiting, up to a batch, ask the network once, hand out the answers; for ever."""
    while True:
        waiting = [await queue.get()]
        while len(waiting) < batch_size and not queue.empty():
            waiting.append(queue.get_nowait())
        images = np.stack([pixels for pixels, _ in waiting])
        try:
            rows = await asyncio.to_thread(_probabilities, task, images)
        except Exception as error:
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            continue
        for (_, answer), row in zip(waiting, rows, strict=True):
            if not answer.done():  # its client may have gone
                answer.set_result(row)


def _probabilities(task: FittedTask, images: np.ndarray) -> list[list[float]]:
    side = task.settings["image_size"]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(task.device)
    return probabilities_of(task, pixels if pixels.shape[2] == side else resized(pixels, side)).cpu().tolist()
