"""A real headless Chromium, driven over WebDriver (https://www.w3.org/TR/webdriver2/) and DevTools."""

from __future__ import annotations

import base64
import http.client
import json
import re
from pathlib import Path
from typing import Any, Final, Self

from tests.support.process import Program
from tests.support.programs import require
from tests.support.wait import wait_for

ANSWER_S: Final = 15.0
"""How long one command may take."""
START_S: Final = 45.0
"""How long a browser may take to start: the first one reads 300 MB, on a machine that does other things."""
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference, as the specification has it."""
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class WebDriverError(AssertionError):
    """The driver, or the page's script, said no."""


class Browser(Program):
    """One window in a profile of its own.

    Args:
        width: Of the viewport, in CSS pixels; phones' widths as well.
        height: Of the viewport.
        dark: The user prefers dark.
    """

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        super().__init__([require("chromedriver"), "--port=0"])
        self._port = 0
        self._session = ""
        self._size = (width, height)
        self._dark = dark

    def ready(self) -> bool:
        """Tell whether the driver listens."""
        found = re.search(r"started successfully on port (\d+)", self.output)
        if found:
            self._port = int(found[1])
        return found is not None

    def start(self) -> Self:
        """Start the driver and the browser."""
        super().start()
        options = {
            "binary": require("chromium"),
            "args": [*_FLAGS, f"--user-data-dir={self.directory / 'profile'}"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}}, deadline_s=START_S)
        self._session = f"/session/{answer['sessionId']}"
        self.resize(*self._size)
        self.prefer(dark=self._dark)
        return self

    def close(self) -> None:
        """End the browser, and the driver with all that it started."""
        try:
            if self._session and self.poll() is None:
                self._call("DELETE", self._session)
        finally:
            self._session = ""
            super().close()

    def _call(self, method: str, path: str, body: object = None, *, deadline_s: float = ANSWER_S) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=deadline_s)
        try:
            data = None if method != "POST" else json.dumps({} if body is None else body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise WebDriverError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    # --- the window

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Give a command of the DevTools protocol."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int) -> None:
        """Make the viewport this large."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, *, dark: bool) -> None:
        """Choose what `prefers-color-scheme` says."""
        value = "dark" if dark else "light"
        self.devtools(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}]
        )

    def open(self, url: str) -> None:
        """Load a page, and wait until it has loaded."""
        self._call("POST", f"{self._session}/url", {"url": url})

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the viewport, or of the whole page."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Return what the console has shown as warning or error since the last time, the network's included."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [each["message"] for each in entries if each["level"] in {"WARNING", "SEVERE"}]

    # --- what is on the page

    def script(self, body: str, *arguments: Any) -> Any:
        """Run a function's body in the page, and return what it returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": body, "args": list(arguments)})

    def texts(self, selector: str) -> list[str]:
        """Return the visible text of each element that matches."""
        found: list[str] = self.script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText.trim())",
            selector,
        )
        return found

    def text(self, selector: str) -> str:
        """Return the visible text of all elements that match, one line for each."""
        return "\n".join(self.texts(selector))

    def wait_text(self, selector: str, wanted: str) -> None:
        """Wait until the text of the elements that match contains `wanted`."""
        last = ""

        def there() -> bool:
            nonlocal last
            last = self.text(selector)
            return wanted in last

        try:
            wait_for(there, f"{wanted!r} in {selector}", every_s=0.05)
        except AssertionError as error:
            msg = f"{error}; the text is {last!r}; the console: {self.complaints()}"
            raise AssertionError(msg) from None

    def wait_true(self, condition: str, *arguments: Any) -> None:
        """Wait until an expression in JavaScript is true."""
        wait_for(lambda: self.script(f"return {condition}", *arguments), condition, every_s=0.05)

    def _element(self, selector: str) -> str:
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return f"{self._session}/element/{found[_ELEMENT]}"

    def click(self, selector: str) -> None:
        """Click where the element is, as a mouse does: what covers it gets the click instead, which is an error."""
        self._call("POST", f"{self._element(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """Press keys in an element; the codes of special ones are in the specification (U+E007 is Enter)."""
        self._call("POST", f"{self._element(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        self._call("POST", f"{self._session}/actions", {"actions": actions})
