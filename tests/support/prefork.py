"""Our programs without what each start of one spends on imports: forked from a process that has them loaded.

Theory of operation:

1. A start of `lb-dataplane` or `lb-control` takes half a second of a core, nearly all of it to load modules; the suite starts
   hundreds. So a process loads them once, does nothing, and forks for each start: the child takes over the arguments, the
   environment, the folder and the output that it would have been executed with, in a session of its own, and calls what
   the installed script calls. Its workers are forked, as always.
2. The child is not ours, so its exit status comes through a pipe, and signals go through a descriptor of the process: one
   that has ended cannot be mistaken for another.
3. What is decided before Python's first line cannot be had so: another command before ours, another user, PYTHONPATH, a
   locale. Such a program is executed. So is every one with LB_TEST_PREFORK=0.
4. Its end is the interpreter's, but that nothing is taken apart: of what would go wrong there nothing is seen.
5. Time that a program waits out by itself, and that no option sets, may be shorter in a child: it sets constants of
   modules before anything runs. What holds with the real values as well only takes longer, so one that is executed keeps
   them. How long they are is a rule of the module's own tests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, NoReturn

_SCRIPTS: Final = {"lb-dataplane": "dataplane.start", "lb-control": "controlplane.cli"}
"""Whose `main` a script calls, as pyproject.toml says."""
_LOADED: Final = {
    "lb-dataplane": ("dataplane", "schemas"),
    "lb-control": (
        "controlplane",
        "schemas",
        "rich.console",
        "rich.table",
        "rich.text",
        "prometheus_client.parser",
    ),
}
"""With all modules below: much is loaded only when it is used, which is at each start of some kind."""
_OPTIONAL: Final = frozenset({"dataplane.telemetry.tracing"})
"""What needs libraries that look at the environment when they are loaded."""
_EARLY: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "SSL_")
"""Variables that are looked at before the first line, or when a module is loaded."""
_FORM: Final = ("LIVELB_", "LD_PRELOAD", "ASAN_", "UBSAN_", "PYTHONMALLOC")
_SAID: Final = "PYTHONUNBUFFERED"


def form() -> dict[str, str]:
    """Return the variables that say which form of the connection path runs: our programs get those of the tests."""
    return {name: value for name, value in os.environ.items() if name.startswith(_FORM)}


def command(name: str) -> str:
    """Return the path of one of our commands: the one installed beside this Python, else from PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed: run `make setup`"
    return found


class Forked:
    """A child of the process that forks, with what `subprocess.Popen` offers of it.

    Args:
        argv: What it runs.
        pid: Its process id.
        descriptor: Of the process.
        ended: Where its exit status will come from.
    """

    def __init__(self, argv: Sequence[str], pid: int, descriptor: int, ended: int) -> None:
        self._argv = argv
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = descriptor
        self._ended = ended

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status; negative for a signal."""
        status = self._await(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(list(self._argv), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _await(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout_s)[0]:
            self.returncode = int(os.read(self._ended, 16) or b"-9")
            os.close(self._ended)
            os.close(self._descriptor)
        return self.returncode

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._ended)
            os.close(self._descriptor)


class _Parent:
    """The process that has a program loaded, and forks."""

    def __init__(self, program: str, *, unbuffered: bool) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            **({_SAID: "1"} if unbuffered else {}),
            **form(),
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, program, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        atexit.register(self._close)

    def spawn(self, asked: Mapping[str, Any], streams: list[int]) -> Forked:
        """Start a program; see `spawn` below."""
        argv: list[str] = asked["argv"]
        ended, its_end = os.pipe()
        try:
            socket.send_fds(self._ours, [json.dumps(asked).encode()], [*streams, its_end])
        finally:
            os.close(its_end)
        answer, descriptors, _, _ = socket.recv_fds(self._ours, 16, 1)
        assert answer, f"{argv[0]} cannot be loaded: try it with LB_TEST_PREFORK=0"
        return Forked(argv, int(answer), descriptors[0], ended)

    def _close(self) -> None:
        self._ours.close()
        self._process.wait()


@functools.cache
def _parent(program: str, owner: int, *, unbuffered: bool) -> _Parent:
    return _Parent(program, unbuffered=unbuffered)


def may_fork(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether a program can be forked instead of executed."""
    program = Path(argv[0]).name
    return (
        os.environ.get("LB_TEST_PREFORK") != "0"
        and program in _SCRIPTS
        and argv[0] == command(program)
        and not any(name.startswith(_EARLY) and name != _SAID for name in environment)
        and form().items() >= {(name, value) for name, value in environment.items() if name.startswith(_FORM)}
    )


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    *,
    streams: Sequence[IO[Any]],
    constants: Mapping[str, float] | None = None,
) -> Forked:
    """Start a program for which `may_fork` holds.

    Args:
        argv: Its path, and its arguments.
        environment: The whole of it.
        directory: Where it runs.
        streams: The files that it reads, and writes its output and its errors to.
        constants: What stands in modules for this one alone, as `{"controlplane.daemon.api._PATCH_S": 0.5}`.
    """
    parent = _parent(Path(argv[0]).name, os.getpid(), unbuffered=_SAID in environment)
    asked = {
        "argv": list(argv),
        "environment": dict(environment),
        "directory": str(directory),
        "constants": dict(constants or {}),
    }
    return parent.spawn(asked, [each.fileno() for each in streams])


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    *,
    piped: str | None = None,
    constants: Mapping[str, float] | None = None,
    timeout_s: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: forked if it can be, else executed.

    Args:
        argv: Its path, and its arguments.
        environment: The whole of it.
        directory: Where it runs.
        piped: Its standard input; None: nothing.
        constants: See `spawn`.
        timeout_s: How long it may take.
    """
    if not may_fork(argv, environment):
        return subprocess.run(
            argv,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL if piped is None else None,
            input=piped,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        given.write(piped or "")
        given.seek(0)
        running = spawn(argv, environment, directory, streams=[given, out, err], constants=constants)
        try:
            code = running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


# -- the process that forks ---------------------------------------------------------------------------


def _load(program: str) -> None:
    for name in _LOADED[program]:
        module = importlib.import_module(name)
        for each in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}."):
            if each.name not in _OPTIONAL:
                importlib.import_module(each.name)
    gc.collect()
    gc.freeze()  # so that children do not copy what they never change


def _serve(requests: socket.socket) -> None:
    """Fork for each request; return in the children only."""
    wakes, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready = select.select([requests.fileno(), wakes], [], [])[0]
        if wakes in ready:
            os.read(wakes, 4096)
            _reap(running)
        if requests.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(requests, 1 << 18, 4)
            if not data:
                os._exit(0)  # whoever asked has ended
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(json.loads(data), descriptors[:3])
                return
            *streams, running[pid] = descriptors
            for each in streams:
                os.close(each)
            descriptor = os.pidfd_open(pid)
            socket.send_fds(requests, [str(pid).encode()], [descriptor])
            os.close(descriptor)


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        ended = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
            os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(ended)


def _become(asked: dict[str, Any], streams: list[int]) -> None:
    """Be what was asked for, as if executed."""
    os.setsid()
    os.chdir(asked["directory"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    sys.argv[:] = asked["argv"]
    for name, value in asked["constants"].items():
        _replace(name, value)


def _replace(name: str, value: float) -> None:
    """Set a constant of a module."""
    module, _, constant = name.rpartition(".")
    constants = vars(importlib.import_module(module))
    assert type(constants[constant]) is float, name
    constants[constant] = value


def _main() -> NoReturn:
    program, number = sys.argv[1:]
    requests = socket.socket(fileno=int(number))
    requests.set_inheritable(False)
    _load(program)
    _serve(requests)
    requests.detach()
    _end(importlib.import_module(_SCRIPTS[program]).main)


def _end(main: Callable[[], None]) -> NoReturn:
    """Run a program and end with its status, but leave to the kernel what the interpreter takes apart at its end.

    That is two thirds of what most commands compute: it writes to all that the child still shares with its parent.
    """
    try:
        main()
        status = 0
    except SystemExit as error:
        if not isinstance(error.code, int | None):  # words, which the interpreter prints
            raise
        status = error.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    _main()
