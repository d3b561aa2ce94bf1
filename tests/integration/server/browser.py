"""Drives a real Chromium through its DevTools protocol: pages, keys, screenshots, and what its console says."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_KEYS = {
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Space": {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
    "ArrowRight": {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39},
}


class Tab:
    """One tab of a browser.

    Args:
        connection: The DevTools socket.
        session: The id of the tab's session.

    Attributes:
        complaints: What the console said, uncaught errors, and violations of the content security policy.
    """

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._number = 0
        self._loaded = False
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; events on the way are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, "sessionId": self._session}
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(event["params"])[:500])
        self._loaded |= event.get("method") == "Page.loadEventFired"

    def show(self, *, width: int, height: int = 1000, dark: bool = False) -> None:
        """Set the size of the window and the colour scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, url: str) -> None:
        """Open an address and wait until the page is loaded."""
        self._loaded = False
        self.send("Page.navigate", url=url)
        while not self._loaded:
            self._note(json.loads(self._connection.recv(timeout=60)))

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript, awaiting a promise."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Wait until JavaScript is true."""
        limit = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < limit, f"not in time: {expression}; {self.complaints}"
            time.sleep(0.05)

    def press(self, key: str, *, times: int = 1, modifiers: int = 0) -> None:
        """Press a key; modifier 8 is Shift, 2 is Control."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, modifiers=modifiers, **_KEYS[key])

    def type(self, text: str) -> None:
        """Type text into what has the focus."""
        self.send("Input.insertText", text=text)

    def tab_to(self, element_id: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(80):
            if self.value("document.activeElement.id") == element_id:
                return
            self.press("Tab")
        raise AssertionError(f"Tab does not reach {element_id}")

    def picture(self, path: Path) -> None:
        """Save a screenshot of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def open_tab(profile: Path) -> Iterator[Tab]:
    """Run a browser with one tab for the time of the block."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as browser:
        try:
            yield from _tab(browser)
        finally:
            browser.kill()


def _tab(browser: subprocess.Popen[str]) -> Iterator[Tab]:
    assert browser.stderr is not None
    for line in browser.stderr:
        found = re.search(r"ws://\S+", line)
        if found:
            break
    else:
        raise AssertionError("the browser did not start")
    with connect(found[0], max_size=None) as connection:

        def command(number: int, method: str, **parameters: Any) -> Any:
            connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
            while (answer := json.loads(connection.recv(timeout=60))).get("id") != number:
                pass
            return answer["result"]

        target = command(-1, "Target.createTarget", url="about:blank")["targetId"]
        session = command(-2, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        yield Tab(connection, session)
