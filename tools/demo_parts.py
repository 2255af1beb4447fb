"""What the demonstrations share: programs that are started, waited for and ended, and calls to them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
CONSUL: Final = ROOT / ".tools/consul"
READY_S: Final = 60.0
"""How long anything may take to happen."""
CLIENT_S: Final = 5.0
"""How long one call waits for its answer."""


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


class Stage:
    """Where programs run: a folder for their output, and their end.

    Args:
        directory: For the output.
        stack: Ends what was started.
    """

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self._began = time.monotonic()

    def spawn(
        self, name: str, *argv: str, environment: Mapping[str, str], **how: Any
    ) -> subprocess.Popen[bytes]:
        """Start a program that ends with the stage; its output goes to a file of its name.

        Args:
            name: What the file is called.
            argv: The command.
            environment: More variables.
            how: As for `subprocess.Popen`.
        """
        log = self.stack.enter_context((self.directory / f"{name}.log").open("ab"))
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **how}
        # In a session of its own: Ctrl-C is for this program, which ends the others in order.
        process = subprocess.Popen(argv, env={**os.environ, **environment}, start_new_session=True, **streams)
        self.stack.callback(end, process)
        return process

    def say(self, text: str) -> None:
        """Tell what has happened, and when."""
        print(f"{time.monotonic() - self._began:6.2f} s  {text}", flush=True)


def wait(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds.

    Raises:
        DemoError: It does not.
    """
    ends = time.monotonic() + READY_S
    while not holds():
        if time.monotonic() > ends:
            raise DemoError(f"waited {READY_S:g} s for {what}")
        time.sleep(0.02)


def find_consul() -> str:
    """Return a Consul's path; it is got if it is not there.

    Raises:
        DemoError: There is none to be had.
    """
    get = subprocess.run([ROOT / "tools/get-consul", CONSUL], check=False, capture_output=True)
    if get.returncode:
        raise DemoError(f"no Consul: {get.stderr.decode().strip()}")
    return str(CONSUL / "usr/bin/consul")


def end(process: subprocess.Popen[bytes]) -> None:
    """End one process that was started here, by its id."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder with a short path, for sockets, and remove it."""
    path = Path(tempfile.mkdtemp(prefix="lb-demo-"))
    try:
        (path / "run").mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CLIENT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CLIENT_S)
        self.sock.connect(str(self._path))


def call_unix(path: Path, target: str) -> Any:
    """Ask what listens on a Unix socket; see `answer`."""
    return answer(_UnixConnection(path), "GET", target)


def answer(connection: http.client.HTTPConnection, method: str, target: str, body: object = None) -> Any:
    """Return the answer's JSON (an empty object for a body that is none); None if there is no answer with 200."""
    try:
        connection.request(method, target, None if body is None else json.dumps(body))
        response = connection.getresponse()
        raw = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if response.status != http.client.OK:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return {}
