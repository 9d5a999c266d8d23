"""Firefox, driven by the protocol that it speaks itself (WebDriver BiDi over a websocket): nothing else is needed."""

import asyncio
import json
import re
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

from tornado.websocket import websocket_connect

PATIENCE = 120  # seconds for an answer; what is asked for takes a few


class Firefox:
    """A headless Firefox with one page. `with Firefox(program) as firefox: firefox.open(address)`."""

    def __init__(self, program: str):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [program, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", self.folder.name]
        told = Path(self.folder.name) / "told"
        with told.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        # In a thread of its own: Playwright's loop may be running in this one.
        self.loop, self.numbers = asyncio.new_event_loop(), count(1)
        self.thread = Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        while (found := re.search(r"BiDi listening on (ws://\S+)\n", told.read_text())) is None:
            if self.process.poll() is not None:
                raise RuntimeError(f"{program} ended before it listened: {told.read_text()[-500:]}")
            sleep(0.1)
        try:
            self.socket = self._wait_for(self._connect(f"{found[1]}/session"))
            self.call("session.new", capabilities={})
            self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]
        except BaseException:  # it would run on, with nobody to end it
            self.process.kill()
            raise

    def __enter__(self) -> "Firefox":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.folder.cleanup()

    def call(self, method: str, **params) -> dict[str, Any]:
        """One command of the protocol and its result."""
        return self._wait_for(self._call(method, params))

    def _wait_for(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    async def _connect(self, address: str):
        return await websocket_connect(address, max_message_size=1 << 28)

    async def _call(self, method: str, params: dict) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.write_message(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = await self.socket.read_message()
            if message is None:
                raise RuntimeError("Firefox closed the connection")
            answer = json.loads(message)
            if answer.get("id") == number:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                return answer["result"]

    def open(self, page: Path | str, width: int = 1280) -> None:
        address = str(page) if str(page).startswith("http") else f"file://{page}"
        self.call("browsingContext.setViewport", context=self.context, viewport={"width": width, "height": 900})
        self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def evaluate(self, expression: str):
        """What an expression, or a promise, comes to; it goes through JSON."""
        text = f"(async () => JSON.stringify(await ({expression}) ?? null))()"
        target = {"context": self.context}
        found = self.call("script.evaluate", expression=text, target=target, awaitPromise=True)
        if found["type"] == "exception":
            raise RuntimeError(found["exceptionDetails"]["text"])
        return json.loads(found["result"]["value"])

    def wait_for(self, selector: str) -> None:
        """Until an element is there."""
        self.evaluate(
            f"""new Promise((resolve) => {{
                const found = () => document.querySelector({json.dumps(selector)});
                const look = () => (found() ? resolve(true) : setTimeout(look, 100));
                look();
            }})"""
        )
