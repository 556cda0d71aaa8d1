"""A headless Chromium to open pages in, by the DevTools protocol over a pipe: no port, no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60

# The browser reads commands from descriptor 3 and writes answers to 4.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find_browser():
    """The browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def browser_or_skip():
    """A browser; where there is none the test is skipped, or fails if GATEWISE_NEEDS_BROWSER is set."""
    path = find_browser()
    if path is None:
        leave = pytest.fail if os.environ.get("GATEWISE_NEEDS_BROWSER") else pytest.skip
        leave(f"there is no browser ({', '.join(NAMES)}) to open the report in: apt install chromium")
    return Browser(path)


def _high(descriptor):
    """The same file under a number that is in nobody's way."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(descriptor)
    return high


class Browser:
    """One page. `complaints` has its errors, its warnings, the breaches of its policy; `requests` all addresses."""

    def __init__(self, path):
        self.folder = tempfile.mkdtemp(prefix="browser-")
        its_in, self.out = map(_high, os.pipe())
        self.into, its_out = map(_high, os.pipe())
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            f"--user-data-dir={self.folder}",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(its_in), str(its_out), path, *options, "about:blank"],
            pass_fds=(its_in, its_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        self.count, self.session, self.unread = 0, None, b""
        self.complaints, self.requests = [], []
        (target,) = [t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        """Give a command and wait for its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(time.monotonic() + SECONDS)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self, until):
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.into], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            read = os.read(self.into, 1 << 16)
            if not read:
                raise RuntimeError("the browser has ended")
            self.unread += read
        first, self.unread = self.unread.split(b"\0", 1)
        message = json.loads(first)
        self._hear(message.get("method"), message.get("params"))
        return message

    def _hear(self, method, params):
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, path, width=1280, height=900, phone=False):
        """Open a file, and wait until its charts are drawn."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self("Page.navigate", url=Path(path).absolute().as_uri())
        self.wait_for("document.readyState === 'complete' && document.documentElement.dataset.drawn === 'all'")

    def run(self, code):
        """The value of an expression in the page, or of what it promises."""
        found = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait_for(self, condition):
        """Until an expression in the page is true."""
        until = time.monotonic() + SECONDS
        while not self.run(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"{condition} did not become true; {self.complaints}")
            time.sleep(0.02)

    def point_at(self, x, y, click=False):
        """Move the mouse to a place in the window."""
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path):
        """Write the whole page as a PNG file."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        """End the browser."""
        self.session = None
        try:
            self("Browser.close")
        finally:
            self.process.wait(timeout=SECONDS)
            os.close(self.out)
            os.close(self.into)
            shutil.rmtree(self.folder, ignore_errors=True)
