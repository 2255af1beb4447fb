"""A network of the demonstration's own: namespaces that end with the process that holds them, and a router among them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tools.demo_parts import DemoError

_CLONE_NEWNET: Final = 0x40000000
_PIECE: Final = 65536


def missing() -> str:
    """Say what a machine lacks for namespaces; empty: nothing."""
    if os.geteuid() != 0:
        return "root is missing: only root makes network namespaces (sudo make demo-cluster)"
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            return f"the program {program} is missing: install {package}"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"network namespaces are missing: {made.stderr.decode().strip()}"


class Namespace:
    """A network of its own, with nothing but loopback.

    Args:
        name: What errors call it.
        stack: Ends it.
    """

    def __init__(self, name: str, stack: contextlib.ExitStack) -> None:
        self.name = name
        setup = "ip link set lo up && echo made && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", setup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        stack.callback(self._holder.communicate)  # the end of its input ends it, and the network with it
        assert self._holder.stdout is not None  # noqa: S101 - it is a pipe
        if self._holder.stdout.readline() != b"made\n":
            raise DemoError(f"no namespace for {name}")
        self._path = Path(f"/proc/{self._holder.pid}/ns/net")

    @property
    def pid(self) -> int:
        """Of the process that holds it."""
        return self._holder.pid

    @property
    def has_ended(self) -> bool:
        """Tell whether it is gone, or about to."""
        return self._holder.stdin is None or self._holder.stdin.closed or self._holder.poll() is not None

    def within(self, *argv: str) -> list[str]:
        """Return a command line that runs `argv` there; its process is the one that is started."""
        return ["nsenter", f"--net={self._path}", *argv]

    def ip(self, words: str) -> None:
        """Change something there, with the words of the command of that name.

        Raises:
            DemoError: It cannot be done.
        """
        done = subprocess.run(self.within("ip", *words.split()), capture_output=True, check=False)
        if done.returncode:
            raise DemoError(f"{self.name}: ip {words}: {done.stderr.decode().strip()}")

    def sysctl(self, setting: str) -> None:
        """Set a setting of its network, as `sysctl` writes it."""
        name, _, value = setting.partition("=")
        path = "/proc/sys/" + name.replace(".", "/")
        subprocess.run(self.within("sh", "-c", f"echo {value} > {path}"), check=True)

    def answers(self, host: str, port: int) -> bool:
        """Tell whether somebody accepts there."""
        try:
            self.connect(host, port, timeout_s=1.0).close()
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be there inside the block, as far as this thread's new sockets are concerned."""
        with Path("/proc/thread-self/ns/net").open("rb") as here, self._path.open("rb") as there:
            _set_network(there)
            try:
                yield
            finally:
                _set_network(here)

    def connect(self, host: str, port: int, *, source: str = "", timeout_s: float) -> socket.socket:
        """Connect from there."""
        with self.entered():
            found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            found.settimeout(timeout_s)
            if source:
                found.bind((source, 0))
            found.connect((host, port))
        except BaseException:
            found.close()
            raise
        return found


def _set_network(namespace: IO[bytes]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Door(threading.Thread):
    """A port on this machine's loopback that leads to a port in a namespace, for a browser.

    Args:
        there: The namespace.
        port: On its loopback.
        stack: Closes it.
    """

    def __init__(self, there: Namespace, port: int, stack: contextlib.ExitStack) -> None:
        super().__init__(name="door", daemon=True)
        self._there = there
        self._to = port
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Let everybody through until it is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
                server = self._there.connect("127.0.0.1", self._to, timeout_s=5.0)
            except OSError:
                if self._listener.fileno() < 0:
                    return
                continue
            server.settimeout(None)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(_PIECE):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


class Router:
    """The router: it sends clients of one address to those nodes that announce it.

    It speaks no BGP here. It reads what `lb-control announce` prints for ExaBGP, as a pipe instead of as a route; an end of
    the pipe is an end of the session.

    Args:
        namespace: Of the router.
        prefix: The clients' address.
    """

    def __init__(self, namespace: Namespace, prefix: str) -> None:
        self._namespace = namespace
        self._prefix = prefix
        self._changing = threading.Lock()
        self._meds: dict[str, int] = {}
        self.used: tuple[str, ...] = ()
        """Nodes that get connections, by their addresses on the router's links: those that announce with the least MED."""

    def listen(self, output: IO[bytes], hop: str) -> None:
        """Follow what a node announces, in a thread that ends with it."""
        threading.Thread(target=self._follow, args=(output, hop), name=hop, daemon=True).start()

    def _follow(self, output: IO[bytes], hop: str) -> None:
        with output:
            for line in output:
                words = line.split()
                if words[:2] == [b"announce", b"route"]:
                    self._change(hop, int(words[words.index(b"med") + 1]) if b"med" in words else 0)
                elif words[:2] == [b"withdraw", b"route"]:
                    self._change(hop, None)
        self._change(hop, None)

    def _change(self, hop: str, med: int | None) -> None:
        """Take in what a node says; None: it withdraws."""
        with self._changing:
            self._meds.pop(hop, None)
            if med is not None:
                self._meds[hop] = med
            least = min(self._meds.values(), default=0)
            used = tuple(sorted(each for each, its in self._meds.items() if its == least))
            if used == self.used:
                return
            if self._namespace.has_ended:  # and the route with it
                return
            if used:
                hops = " ".join(f"nexthop via {each}" for each in used)
                self._namespace.ip(f"route replace {self._prefix} {hops}")
            else:
                self._namespace.ip(f"route del {self._prefix}")
            self.used = used
