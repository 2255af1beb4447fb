"""For BIRD, FRR and whatever else announces what is on an interface: addresses that the kernel removes by itself.

Theory of operation
-------------------

1. The routing daemon announces the addresses of one interface, and of another one with less preference (a higher MED). Both
   are interfaces that lead nowhere. While this node is ready, its addresses are on the one or the other.
2. Each address has a lifetime of `hold_s`, which is renewed at each round. Whoever renews may die, hang, be stopped or frozen:
   then the kernel removes the address, and the routing daemon withdraws the route. Nothing of ours has to work for that.
3. From one interface to the other an address is added before it is removed: the route is never away.
4. Nobody's packets depend on these addresses: what clients connect to is on the loopback interface, for good, so that
   connections in place go on.
"""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from controlplane.core.announcement import Call, Prefix, call_of
from controlplane.core.readiness import Readiness
from controlplane.errors import PlaceError

_IP_S: Final = 2.0
"""For one call of `ip`."""


class Ended(Exception):  # noqa: N818 - it is told to end: no error
    """Nothing more is to be announced."""


class Addresses:
    """Keeps the addresses on one interface, or on none.

    Args:
        prefixes: The addresses, each with its length.
        interfaces: Where they are, by what routers are to be told.
        hold_s: How long they stay there by themselves.
        run: Runs `ip` with these arguments; returns what it complains of, empty if it did what it was told.
    """

    def __init__(
        self,
        prefixes: Sequence[Prefix],
        interfaces: dict[Call, str],
        hold_s: float,
        run: Callable[[Sequence[str]], str],
    ) -> None:
        self._prefixes = prefixes
        self._interfaces = interfaces
        self._life = str(math.ceil(hold_s))
        self._run = run
        self._on: Call | None = None
        """Where they are; None: nobody knows."""

    def put(self, call: Call) -> list[str]:
        """Renew them where they belong, and remove them everywhere else; return what could not be done."""
        wanted = self._interfaces.get(call)
        failed = [] if wanted is None else self._each("replace", wanted)
        if call is not self._on:
            for interface in self._interfaces.values():
                if interface != wanted:
                    self._each(
                        "del", interface
                    )  # of one that is not there `ip` complains, and it ends by itself anyway
        self._on = None if failed else call
        return failed

    def _each(self, verb: str, interface: str) -> list[str]:
        failed = []
        for prefix in self._prefixes:
            words = [f"-{prefix.version}", "address", verb, str(prefix), "dev", interface]
            if verb == "replace":
                words += ["valid_lft", self._life, "preferred_lft", self._life]
                words += ["nodad"] if prefix.version == 6 else []  # noqa: PLR2004 - IP's version
            if said := self._run(words):
                failed.append(f"{prefix} on {interface}: {said}")
        return failed


def ip_command() -> Callable[[Sequence[str]], str]:
    """Return what runs `ip`; PlaceError if it is not there."""
    path = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise PlaceError("the program ip is missing: install iproute2")

    def run(words: Sequence[str]) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and words of our own
                [path, *words],
                capture_output=True,
                text=True,
                timeout=_IP_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_IP_S:g} s"
        except OSError as error:
            return str(error)
        return "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"

    return run


def keep(
    addresses: Addresses, ask: Callable[[], Readiness], tell: Callable[[str], None], interval_s: float
) -> None:
    """Keep them right until SIGTERM or SIGINT, then remove them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    told = ""
    try:
        while True:
            verdict = ask()
            call = call_of(verdict)
            failed = addresses.put(call)
            said = f"{call} ({verdict.reason})" if verdict.reason else str(call)
            why = "; ".join([said, *failed])
            if why != told:
                told = why
                tell(why)
            time.sleep(interval_s)
    except Ended:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        addresses.put(Call.WITHDRAWN)
        tell("ended, and withdrawn")


def _end(_number: int, _frame: FrameType | None) -> None:
    raise Ended
