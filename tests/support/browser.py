"""A headless Chromium that opens one page, driven over a pipe by the DevTools protocol."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One page. ``requests`` are the URLs that it asked for, ``problems`` what it complained of."""

    def __init__(self, to: int, back: int) -> None:
        self._to = to
        self._from = open(back, "rb", closefd=False)  # noqa: SIM115
        self._numbers = itertools.count(1)
        self._session = ""
        self.requests: list[str] = []
        self.problems: list[str] = []

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Page", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.evaluate(
            "new Promise(done => document.readyState == 'complete' ? done(1) : "
            "addEventListener('load', () => done(1)))"
        )

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path, width: int = 1200, height: int = 800) -> None:
        """Write a picture of the page."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        found = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result. Events are noted meanwhile."""
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._to, json.dumps(asked).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            case "Log.entryAdded":
                self.problems.append(event["params"]["entry"]["text"])


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe, neither of which is 3 or 4, where a browser wants its own."""
    ends = os.pipe()
    try:
        return fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(
            ends[1], fcntl.F_DUPFD_CLOEXEC, 10
        )
    finally:
        for end in ends:
            os.close(end)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run a browser with a new profile; its process is ended at the end."""
    assert CHROMIUM is not None
    child_in, to = _pipe()
    back, child_out = _pipe()
    command = (
        f'exec "$0" --headless=new --no-sandbox --disable-gpu --remote-debugging-pipe '
        f'--user-data-dir="$1" --no-first-run --mute-audio about:blank '
        f"3<&{child_in} 4>&{child_out}"
    )
    process = subprocess.Popen(
        ["bash", "-c", command, CHROMIUM, str(profile)],
        pass_fds=(child_in, child_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(child_in)
    os.close(child_out)
    try:
        yield Browser(to, back)
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(back)
