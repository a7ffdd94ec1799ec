"""A headless Chromium that a program drives over two pipes, by the DevTools protocol: no port, no other library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ttca.errors import TTCAError

__all__ = ["Browser", "BrowserError", "chromium"]

# The browser reads from descriptor 3 and writes to 4, whatever the pipes are called here.
_START = (
    "import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.dup2(int(sys.argv[2]), 4)\nos.execv(sys.argv[3], sys.argv[3:])"
)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--force-color-profile=srgb", "--hide-scrollbars"),
)


class BrowserError(TTCAError):
    """The browser refused a command, or a script in its page failed."""


def chromium() -> str | None:
    """Return where Chromium is, None where it is not installed."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class Browser:
    """One browser with one page.

    Parameters
    ----------
    language : str
        What its user reads, such as ``"en-US"``.

    Notes
    -----
    ``requests`` holds the addresses that the page asked for, ``complaints`` what its console said in anger.
    """

    def __init__(self, *, language: str = "en-US") -> None:
        program = chromium()
        if program is None:
            raise BrowserError("Expected Chromium on this machine, got none. Install it: apt-get install chromium.")
        self._home = tempfile.TemporaryDirectory(prefix="ttca-browser-", ignore_cleanup_errors=True)
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # Above 3 and 4, so that neither is lost when the other takes its place.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]
        os.close(reads)
        os.close(writes)
        flags = [*_FLAGS, f"--user-data-dir={self._home.name}", f"--lang={language}", f"--accept-lang={language}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, ends), program, *flags, "about:blank"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._home.name, "LANGUAGE": language.replace("-", "_")},
        )
        for end in ends:
            os.close(end)
        self._rest, self._count, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self._call(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Open a page from a file, and wait until it is loaded."""
        self.requests.clear()
        self.complaints.clear()
        self._events.clear()
        self._call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def run(self, script: str) -> Any:
        """Return what an expression gives in the page, after its promise if it is one."""
        done = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def worked(self, script: str) -> float:
        """Return how many seconds the page's own thread computed for an expression: what others do does not count."""
        self._call("Performance.enable", timeDomain="threadTicks")

        def computed() -> float:
            metrics = self._call("Performance.getMetrics")["metrics"]
            return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

        before = computed()
        self.run(script)
        return computed() - before

    def before_every_page(self, script: str) -> None:
        """Run a script in every page that is opened from now on, before the page's own."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in the page's own field, as a person does."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file.resolve())])

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key and let it go."""
        for kind in ("rawKeyDown", "keyUp"):
            code = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key]
            more = {"windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one point of the window, move it to another, and let it go."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def look(self, *, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """Make the window so large, in CSS pixels, and light or dark."""
        mobile = width < 600
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        self._call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def picture(self, file: Path) -> None:
        """Write the whole page as a picture."""
        said = self._call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        file.write_bytes(base64.b64decode(said["data"]))

    def downloads_into(self, folder: Path) -> None:
        """Write what the page saves into a folder."""
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)

    def wait_for(self, method: str, **values: Any) -> dict[str, Any]:
        """Return what an event says, the first of its name with these values since the page was opened."""
        while True:
            for i, event in enumerate(self._events):
                if event["method"] == method and event["params"].items() >= values.items():
                    params: dict[str, Any] = self._events.pop(i)["params"]
                    return params
            self._hear()

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            heard = self._hear()
            if heard is not None and heard["id"] == self._count:
                if "error" in heard:
                    raise BrowserError(f"{method}: {heard['error']['message']}")
                result: dict[str, Any] = heard["result"]
                return result

    def _hear(self) -> dict[str, Any] | None:
        """Read one message; return it if it is an answer, keep it if it is an event."""
        parts = [self._rest]
        while b"\0" not in parts[-1]:
            part = os.read(self._from, 1 << 20)
            if not part:
                raise BrowserError("The browser ended.")
            parts.append(part)
        message, _, self._rest = b"".join(parts).partition(b"\0")
        heard: dict[str, Any] = json.loads(message)
        if "id" in heard:
            return heard
        method, params = heard["method"], heard["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        self._events.append(heard)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)
        os.close(self._to)
        os.close(self._from)
        self._home.cleanup()
