"""`make run`: two backends, a data plane and a control plane, in one terminal, in a folder of their own.

Everything is started in order, waited for, shown with its name in front, and ended by its id on Ctrl-C, on
SIGTERM, or when one of them ends by itself, which is then said with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLE: Final = ROOT / "deploy/examples/lb.yaml"
SCHEMA: Final = EXAMPLE.with_name("lb.schema.json")
"""What editors know lb.yaml by; its first line names it."""
HOST: Final = "127.0.0.1"
PORTS: Final = (4000, 5001, 5002)
"""In the example: the listener's, and the backends'."""
READY_S: Final = 20.0
"""How long a part has to get ready."""
ENDING_S: Final = 10.0
"""How long a part has to end before it is killed."""
READ_LIMIT: Final = 1 << 20
"""The longest line of output, in bytes."""

HTTP_PORT: Final = 7700
"""The page's."""

HINTS: Final = """
The page:  http://{host}:{http}/     its token:  {token}

The balancer listens on {host}:{port}, with two backends. In another terminal, in {root}:

    export PATH="{bin}:$PATH"
    export LB_RUNTIME_DIR={runtime} LB_STATE_DIR={state}

    echo hello | python3 tools/send.py {host} {port} --count 4      # who answers?
    while sleep .1; do echo hello | python3 tools/send.py {host} {port}; done      # traffic, until Ctrl-C

    lb-control status
    lb-control drain web web-1      # and: enable, weight, top, history, rollback, explain
    $EDITOR {config}      # change anything: it is applied as you save

Ctrl-C ends everything.
"""


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


@dataclass(frozen=True)
class Part:
    """One of the processes."""

    name: str
    process: asyncio.subprocess.Process
    output: asyncio.Task[None]


class Demo:
    """All parts together.

    Args:
        directory: For the configuration, the sockets and the state.
        ports: The listener's, and the backends'.
        http: The page's port.
    """

    def __init__(self, directory: Path, ports: tuple[int, ...], http: int) -> None:
        self._ports = ports
        self._http = http
        self._token_file = directory / "http.token"
        self._config = directory / "lb.yaml"
        self._runtime = directory / "run"
        self._state = directory / "state"
        self._parts: list[Part] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, wait for `stop` or for the first part that ends, and end the others.

        Raises:
            DemoError: Something is missing, or ended, or did not get ready.
        """
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            starting.result()
            ends = {asyncio.create_task(part.process.wait()): part for part in self._parts}
            done, _ = await asyncio.wait({*ends, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {stopping}:
                part = ends[ended]
                msg = f"{part.name} ended with status {part.process.returncode}"
                raise DemoError(msg)
        finally:
            starting.cancel()
            stopping.cancel()
            await self._end()

    async def _start(self) -> None:
        for needed in (EXAMPLE, SCHEMA):
            if not needed.exists():
                msg = f"{needed} is missing"
                raise DemoError(msg)
        configuration = EXAMPLE.read_text()
        for usual, port in zip(PORTS, self._ports, strict=True):
            _require_free(port)
            configuration = configuration.replace(f"{HOST}:{usual}", f"{HOST}:{port}")
        _require_free(self._http)
        self._config.write_text(configuration)
        shutil.copyfile(SCHEMA, self._config.with_name(SCHEMA.name))
        token = secrets.token_urlsafe(9)
        self._token_file.write_text(token)
        self._runtime.mkdir(mode=0o700)
        for port in self._ports[1:]:
            name = f"backend {port}"
            await self._spawn(
                name, sys.executable, str(ROOT / "tools/test_backend.py"), str(port), "--name", name
            )
        await self._wait(lambda: _answer_all(self._ports[1:]), "the backends")
        await self._spawn("dataplane", _command("lb-dataplane"), "--name", "demo", "--log-format", "text")
        api = self._runtime / "dataplane-demo.sock"
        await self._wait(lambda: _call(api, "/livez"), "the data plane")
        page = ["--http", f"{HOST}:{self._http}", "--http-token-file", str(self._token_file)]
        await self._spawn("control", _command("lb-control"), "run", str(self._config), *page)
        await self._wait(lambda: _serves(api), "the first snapshot to be applied")
        places = {
            "host": HOST,
            "http": self._http,
            "token": token,
            "port": self._ports[0],
            "config": self._config,
            "runtime": self._runtime,
            "state": self._state,
        }
        print(HINTS.format(root=ROOT, bin=Path(_command("lb-control")).parent, **places), flush=True)

    async def _spawn(self, name: str, *argv: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "LB_RUNTIME_DIR": str(self._runtime),
                "LB_STATE_DIR": str(self._state),
            },
            limit=READ_LIMIT,
            start_new_session=True,  # the terminal's Ctrl-C is ours; we end the parts in order
        )
        self._parts.append(Part(name, process, asyncio.create_task(_show(name, process))))

    async def _wait(self, ready: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask until it is ready, for as long as every part lives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not await ready():
                    for part in self._parts:
                        if part.process.returncode is not None:
                            await part.output
                            msg = f"{part.name} ended with status {part.process.returncode}"
                            raise DemoError(msg)
                    await asyncio.sleep(0.05)
                return
        msg = f"waited {READY_S:g} s for {what}"
        raise DemoError(msg)

    async def _end(self) -> None:
        """End what still runs, the last that was started first."""
        for part in reversed(self._parts):
            with contextlib.suppress(ProcessLookupError):
                part.process.terminate()
            try:
                await asyncio.wait_for(part.process.wait(), ENDING_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(part.process.pid, signal.SIGKILL)
                await part.process.wait()
            await part.output


async def _show(name: str, process: asyncio.subprocess.Process) -> None:
    """Print each line of the output with the name in front."""
    if process.stdout is None:
        return
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # longer than READ_LIMIT; the stream has dropped it
            line = b"(a line too long to show)\n"
        if not line:
            return
        print(f"[{name}] {line.decode(errors='replace').rstrip()}", flush=True)


def _command(name: str) -> str:
    """Return one of our commands: beside this Python, else from PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        msg = f"{name} is not installed: run `make setup`"
        raise DemoError(msg)
    return found


def _require_free(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        msg = f"port {port} cannot be used: {error.strerror}. What listens there? (ss -ltnp)"
        raise DemoError(msg) from None


async def _answer_all(ports: tuple[int, ...]) -> bool:
    for port in ports:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
    return True


async def _serves(api: Path) -> bool:
    """Tell whether the data plane runs a snapshot and accepts on all its listeners."""
    info = await _call(api, "/v1/info")
    return bool(info and info["generation"] >= 1 and await _call(api, "/readyz"))


async def _call(api: Path, path: str) -> Any:
    """Return the body of a GET, or True if it has none or is no JSON; None if it failed."""
    try:
        reader, writer = await asyncio.open_unix_connection(api)
    except OSError:
        return None
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = await reader.read()
    except OSError:
        return None
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [str(int(http.client.OK)).encode()]:
        return None
    try:
        return json.loads(body) or True
    except ValueError:
        return True


async def main() -> None:
    """Run the demonstration; exit with 1 and the reason if it ends by itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ports",
        metavar="N",
        type=int,
        nargs=3,
        default=PORTS,
        help="of the listener and of the two backends",
    )
    parser.add_argument("--http", metavar="N", type=int, default=HTTP_PORT, help="of the page")
    given = parser.parse_args()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="lb-demo-") as directory:
        try:
            await Demo(Path(directory), tuple(given.ports), given.http).run(stop)
        except DemoError as error:
            sys.exit(f"run: {error}")


if __name__ == "__main__":
    asyncio.run(main())
