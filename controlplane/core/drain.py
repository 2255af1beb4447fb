"""Taking a whole node out: which phase it is in, what may follow, and how that is written down.

Theory of operation
-------------------

1. The network is told first, the clients last. A node that is `lowered` serves as before, and whoever has a choice prefers
   another one: BGP by a higher MED, VRRP by a lower priority. So traffic moves while everything still works here.
2. A `withdrawn` node is not ready: its routes go, its VRRP addresses move, Consul calls it critical. Clients still come for
   a while, since routers and registries need their time; they are served.
3. Once none has come for a while, the node is `draining`: each connection in place has the drain timeout of its service.
   New clients, should there be any, are still served: nobody is refused for the sake of order.
4. With the last connection gone it is `drained`, and may be switched off. It stays so over restarts, until it is enabled.
5. `enable` leads back from every phase, in one step: nothing was changed that would have to be put back one by one.
6. A command that was interrupted is given again, and goes on where the node is: each turn that is behind it changes nothing.
7. `TRANSITIONS` lists every pair that can occur. A pair that is missing means that somebody else has turned the node
   meanwhile (it was enabled while it drained): the command that waits is told so.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from typing import Any, Final

_MAX_BYTES: Final = 4096
_VERSION: Final = 1


class Phase(StrEnum):
    """Where a node is between serving and being switched off."""

    ENABLED = "enabled"
    """It serves."""
    LOWERED = "lowered"
    """It serves, and asks routers to prefer other nodes."""
    WITHDRAWN = "withdrawn"
    """It is not ready: routes and addresses leave it, and clients with them."""
    DRAINING = "draining"
    """Its connections in place have their last deadline."""
    DRAINED = "drained"
    """It may be switched off."""


class Turn(Enum):
    """What is done to a node."""

    LOWER = "lower"
    WITHDRAW = "withdraw"
    DRAIN = "drain"
    """No new client has come for a while."""
    FINISH = "finish"
    """Its last connection has gone."""
    ENABLE = "enable"


TRANSITIONS: Final[dict[tuple[Phase, Turn], Phase]] = {
    (Phase.ENABLED, Turn.LOWER): Phase.LOWERED,
    (Phase.LOWERED, Turn.LOWER): Phase.LOWERED,
    (Phase.LOWERED, Turn.WITHDRAW): Phase.WITHDRAWN,
    (Phase.WITHDRAWN, Turn.LOWER): Phase.WITHDRAWN,
    (Phase.WITHDRAWN, Turn.WITHDRAW): Phase.WITHDRAWN,
    (Phase.WITHDRAWN, Turn.DRAIN): Phase.DRAINING,
    (Phase.DRAINING, Turn.LOWER): Phase.DRAINING,
    (Phase.DRAINING, Turn.WITHDRAW): Phase.DRAINING,
    (Phase.DRAINING, Turn.DRAIN): Phase.DRAINING,
    (Phase.DRAINING, Turn.FINISH): Phase.DRAINED,
    (Phase.DRAINED, Turn.LOWER): Phase.DRAINED,
    (Phase.DRAINED, Turn.WITHDRAW): Phase.DRAINED,
    (Phase.DRAINED, Turn.DRAIN): Phase.DRAINED,
    (Phase.DRAINED, Turn.FINISH): Phase.DRAINED,
    **{(phase, Turn.ENABLE): Phase.ENABLED for phase in Phase},
}


@dataclass(frozen=True, slots=True)
class Drain:
    """What is on record about taking this node out."""

    phase: Phase = Phase.ENABLED
    by: str = ""
    """Whose command it was; empty: nobody has ever given one."""
    since: str = ""
    """Of the phase, RFC 3339."""

    def turned(self, turn: Turn, by: str, now: str) -> Drain:
        """Return what follows; of a turn that changes nothing, the same; KeyError: see rule 7."""
        phase = TRANSITIONS[self.phase, turn]
        return self if phase is self.phase else Drain(phase, by, now)

    def report(self) -> dict[str, Any] | None:
        """Return it for the node's record and status; None: it is enabled."""
        return None if self.phase is Phase.ENABLED else asdict(self)

    def encode(self) -> bytes:
        """Write it down."""
        return json.dumps({"version": _VERSION, **asdict(self)}).encode() + b"\n"


def parse(raw: bytes) -> Drain:
    """Read what was written down; ValueError with the reason if it is nothing of that."""
    if len(raw) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    try:
        body = json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(body, dict) or body.get("version") != _VERSION:
        raise ValueError("it is of another version")
    phase, by, since = (str(body.get(name, "")) for name in ("phase", "by", "since"))
    if phase not in {each.value for each in Phase}:
        raise ValueError(f"there is no phase {phase!r}")
    return Drain(Phase(phase), by, since)
