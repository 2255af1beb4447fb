"""Machines made of namespaces: each with its own network, processes, host name and directories, and gone when the test is.

Theory of operation:

1. A machine is a process, its init, in namespaces of its own. It waits for the end of its input, which only the test's process
   can bring about: by closing it, and by being killed. When an init ends, the kernel kills everything in its machine.
2. With its cables pulled before, that is what a power cut does: nobody is told, nothing is flushed, no FIN is sent.
3. Who enters another process namespace has to fork, so each program has a process outside that waits for it: it is killed with the
   test's process, it stops when the program is stopped, and a machine is gone only when it has reaped the program.
4. Cables are pairs of interfaces. A switch is a bridge in one of the machines, so that a machine that is switched off takes
   the link away from its port and from nobody else.
5. `/etc` and `/usr/bin` are this machine's with changes that nobody else sees, so that files of `deploy/` are put where they belong
   and work there as they are. `/run` is empty after each start, and `/var/lib` is a disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.namespaces import enter
from tests.support.prefork import command
from tests.support.process import Program
from tests.support.wait import wait_for

_OVERLAID: Final = ("/etc", "/usr/bin")
_OURS: Final = ("lb-control", "lb-dataplane")


def _init(name: str, scratch: Path, disk: Path) -> str:
    """Return what an init does before it waits for its end."""
    lines = [f"hostname {name}", "ip link set lo up", f"mount -t tmpfs scratch {scratch}"]
    for place in _OVERLAID:
        upper, work = f"{scratch}/upper{place}", f"{scratch}/work{place}"
        lines += [
            f"mkdir -p {upper} {work}",
            f"mount -t overlay overlay -o lowerdir={place},upperdir={upper},workdir={work} {place}",
        ]
    lines += ["mount -t tmpfs run /run", f"mount --bind {disk} /var/lib"]
    lines += [f"ln -sf {command(program)} /usr/bin/{program}" for program in _OURS]
    # the user whom units name, with the rights that systemd would give it: root's
    lines += ["echo lb:x:0:0::/var/lib/lb:/bin/sh >>/etc/passwd", "echo lb:x:0: >>/etc/group"]
    lines += ["mkdir -p -m 700 /run/lb /var/lib/lb", "mkdir /run/bird /run/exabgp"]
    lines += [f"echo 127.0.0.1 localhost {name} >/etc/hosts"]
    return " && ".join([*lines, "echo made", "exec cat"])


class Machine:
    """One machine, that is switched on inside the block.

    Args:
        name: Its host name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ports: list[tuple[Machine, str]] = []
        """What its cables are plugged into."""
        self._holder: subprocess.Popen[str] | None = None
        self._init = 0
        self._directory = Path(tempfile.mkdtemp(prefix="lb-test-"))

    def on(self) -> Self:
        """Switch it on: no interface but loopback, no process but init."""
        namespaces = ["--net", "--pid", "--mount", "--uts"]
        scratch, disk = self._directory / "scratch", self._directory / "disk"
        for directory in (scratch, disk):
            directory.mkdir(exist_ok=True)
        unshare = ["unshare", *namespaces, "--fork", "--kill-child=KILL", "--mount-proc"]
        self._holder = subprocess.Popen(
            [*unshare, "sh", "-c", _init(self.name, scratch, disk)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # unshare complains of its own end
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "made\n", self.name
        self._init = _only_child(self._holder.pid)
        return self

    def off(self) -> None:
        """Cut its power: its cables are dead before its kernel could send anything. The second time does nothing."""
        if self._holder is not None:
            for other, port in self.ports:
                if other.is_on:
                    other.ip(f"link delete {port}")
            self.ports.clear()
            waiting = self._waiting()
            os.kill(self._init, signal.SIGKILL)
            _signal(waiting, signal.SIGCONT)
            self._holder.communicate()
            self._holder = None

    def __enter__(self) -> Self:
        return self.on()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.off()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._holder is not None

    @property
    def init(self) -> int:
        """The process id of its init, as the test's machine has it; `ip link` takes it for its network."""
        assert self._holder is not None, f"{self.name} is switched off"
        return self._init

    def path(self, place: str) -> Path:
        """Return where a path of this machine is, for whoever is not on it."""
        return Path(f"/proc/{self.init}/root{place}")

    def put(self, place: str, content: str) -> None:
        """Write a file there."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def within(self, argv: Sequence[str]) -> list[str]:
        """Return a command line that runs `argv` there; what it starts runs as its child."""
        namespaces = ["--net", "--pid", "--mount", "--uts"]
        return ["setpriv", "--pdeathsig=KILL", "nsenter", f"--target={self.init}", *namespaces, *argv]

    def run(self, *argv: str, timeout_s: float = 30.0) -> str:
        """Run a command there that must succeed, and return its output."""
        done = subprocess.run(
            self.within(argv), capture_output=True, text=True, check=False, timeout=timeout_s
        )
        assert done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def try_to(self, *argv: str) -> str:
        """Run a command there to its end, and return what it writes, whatever its exit code."""
        done = subprocess.run(
            self.within(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Change something in its network: lines as `ip -batch` takes them."""
        done = subprocess.run(
            self.within(["ip", "-batch", "-"]),
            input="\n".join(lines),
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {lines}: {done.stderr}"

    def set(self, **settings: int) -> None:
        """Set sysctls of its network, below `net`, with `__` for a dot: `ipv4__ip_forward=1`."""
        assigned = [f"net.{name.replace('__', '.')}={value}" for name, value in settings.items()]
        self.run("sysctl", "-qw", *assigned)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in its network inside the block, as far as this thread's new sockets and threads are concerned."""
        with enter(Path(f"/proc/{self.init}/ns/net")):
            yield

    def pids(self) -> list[int]:
        """Return its processes without init, as the test's machine numbers them."""
        return [pid for pid, own, _ in _processes() if own == self._namespace and pid != self._init]

    def _waiting(self) -> list[int]:
        """Return the processes outside that wait for one inside."""
        ours = self._namespace
        return [pid for pid, own, childrens in _processes() if childrens == ours != own]

    @property
    def _namespace(self) -> str:
        return str(Path(f"/proc/{self.init}/ns/pid").readlink())

    def freeze(self) -> None:
        """Stop all its processes; its kernel goes on, and answers for them."""
        stopped: set[int] = set()
        while new := set(self.pids()) - stopped:  # one may have forked before it was its turn
            _signal(new, signal.SIGSTOP)
            stopped |= new
            _wait_stopped(stopped)

    def kill(self) -> None:
        """Kill all its processes; its kernel goes on, and says so for them."""
        while left := self.pids():
            _signal(left, signal.SIGKILL)

    def thaw(self) -> None:
        """Let its processes go on."""
        _signal([*self.pids(), *self._waiting()], signal.SIGCONT)


class Service(Program):
    """A program on a machine. Signals go to the program itself, though a process of ours waits for it.

    Args:
        machine: Where it runs.
        argv: The command.
        environment: See `Program`.
        stop_signal: What asks it to end in good order.
    """

    def __init__(
        self,
        machine: Machine,
        argv: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        super().__init__([], environment=environment, stop_signal=stop_signal)
        self.machine = machine
        self.command = list(argv)

    def _spawn(self) -> None:
        self.argv = self.machine.within(self.command)
        super()._spawn()

    def ready(self) -> bool:
        """Tell whether it has been started there."""
        return bool(_children(super().pid))

    @property
    def pid(self) -> int:
        """Of the program, as the test's machine numbers it; ProcessLookupError if it has ended."""
        waiting = super().pid
        found = wait_for(lambda: _children(waiting) or self.poll() is not None, f"a child of {waiting}")
        if not isinstance(found, list):
            raise ProcessLookupError
        return int(found[0])

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, none of its children, and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End what still runs, if the machine has not taken it along already."""
        if self.poll() is None and self._process is not None:
            self.send_signal(signal.SIGCONT)
        super().close()


def state(pid: int) -> str:
    """Return the letter for a process's state, as `ps` has it; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _processes() -> Iterator[tuple[int, str, str]]:
    """Yield each process with its process namespace, and the one that its children are in."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended, or nobody may look
            if entry.name.isdigit():
                own, childrens = (
                    str((entry / "ns" / name).readlink()) for name in ("pid", "pid_for_children")
                )
                yield int(entry.name), own, childrens


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_stopped(pids: set[int]) -> None:
    wait_for(lambda: all(state(pid) in "TZ" for pid in pids), f"{pids} to stop")


def _children(pid: int) -> list[str]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def _only_child(pid: int) -> int:
    """Return the process that a command runs which waits for it."""
    return int(wait_for(lambda: _children(pid), f"a child of {pid}", every_s=0.001)[0])


def cable(one: Machine, name: str, other: Machine, other_name: str) -> None:
    """Join two machines by an interface in each."""
    one.ports.append((other, other_name))
    far = ["peer", "name", other_name, "netns", str(other.init)]
    subprocess.run(
        ["ip", "link", "add", "name", name, "netns", str(one.init), "type", "veth", *far], check=True
    )


def switch(machine: Machine, name: str, address: str) -> None:
    """Make a bridge in a machine, with an address of the machine's on it."""
    # without an address of its own it has the lowest of its ports', another one when that port's machine is switched off
    machine.ip(
        f"link add {name} address 02:00:00:00:00:01 type bridge",
        f"link set {name} up",
        f"address add {address} dev {name}",
    )


def plug(machine: Machine, name: str, address: str, into: tuple[Machine, str]) -> None:
    """Give a machine an interface with an address, and plug its cable into a switch."""
    other, bridge = into
    port = f"{bridge}-{machine.name}"
    cable(machine, name, other, port)
    other.ip(f"link set {port} master {bridge}", f"link set {port} up")
    machine.ip(f"address add {address} dev {name}", f"link set {name} up")
