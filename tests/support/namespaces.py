"""Programs in namespaces of their own: what root can change for one process and its children, and for nobody else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import pytest

_CLONE_NEWNET: Final = 0x40000000


def _reason() -> str:
    if os.geteuid() != 0:
        return "root is missing: only root makes namespaces"
    made = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"namespaces are missing: {made.stderr.decode().strip()}"


_REASON: Final = _reason()
needs_namespaces: Final = pytest.mark.skipif(bool(_REASON), reason=_REASON)


def with_hosts(argv: list[str], hosts: Path) -> list[str]:
    """Return a command line that runs `argv` with another /etc/hosts; its process is the one that is started."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(hosts), *argv]


class Network:
    """A network of its own, with loopback and one more interface, `v0`, that has what `addresses` says.

    Args:
        addresses: As `ip address add` takes them.
    """

    def __init__(self, *addresses: str) -> None:
        setup = [
            "ip link set lo up",
            "ip link add v0 type veth peer name v1",
            "ip link set v0 up",
            "ip link set v1 up",
            # The kernel notices the carrier a moment later, and has no route to an IPv6 address before.
            "until ip -oneline link show v0 | grep -q 'state UP'; do sleep 0.01; done",
        ]
        for one in addresses:
            setup.append(f"ip address add {one} dev v0")
            address = one.partition("/")[0]
            if ":" in address:  # the kernel makes its route a moment later
                setup.append(
                    f"until ip -6 -oneline route show table local | grep -q '^local {address} '; do sleep 0.01; done"
                )
        self._setup = " && ".join(setup)
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = ["unshare", "--net", "sh", "-c", f"{self._setup} && echo made && exec cat"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "made\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder is not None
        self._holder.communicate()  # the end of its input ends it, and the network with it

    @property
    def _path(self) -> str:
        assert self._holder is not None
        return f"/proc/{self._holder.pid}/ns/net"

    def within(self, argv: list[str]) -> list[str]:
        """Return a command line that runs `argv` there; its process is the one that is started."""
        return ["nsenter", f"--net={self._path}", *argv]

    def ip(self, *arguments: str) -> None:
        """Change something there, with the arguments of the command of that name."""
        subprocess.run(self.within(["ip", *arguments]), check=True)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be there inside the block, as far as this thread's new sockets are concerned."""
        with enter(Path(self._path)):
            yield


@contextlib.contextmanager
def enter(network: Path) -> Iterator[None]:
    """Be in the network of that file in /proc inside the block: this thread, and threads that it begins there."""
    with Path("/proc/thread-self/ns/net").open("rb") as here, network.open("rb") as there:
        _set_network(there.fileno())
        try:
            yield
        finally:
            _set_network(here.fileno())


def _set_network(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
