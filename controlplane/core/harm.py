"""What clients of a service met in the last minute that was neither their own doing nor wanted, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

REFUSED_BAD: Final = 0.01
"""From this share of the clients on it is bad that they are refused; the alert LbClientsTurnedAway begins there, too."""
CUT_SAID: Final = 0.01
"""Below this share it is not said that backends cut clients: with some protocols resets are how one ends."""
CUT_BAD: Final = 0.5

_LIMITS: Final = "the backends are too slow for so many clients: add backends, or raise limits"
_TRY: Final = "try the backends by hand, from this machine"
_ADVICE: Final = {
    "backend_reset": "the backends' own logs should say why",
    "backend_tls_failed": "the access log's detail says which part of the handshake failed; mend backend_tls or the backends' certificates",
    "connect_failed": _TRY,
    "connect_timeout": _TRY,
    "limit_connections": _LIMITS,
    "limit_per_backend": _LIMITS,
    "local_error": "this machine has run out of local ports, descriptors or memory; its log names which (local_error)",
    "no_backend": "no backend may be used, for the reasons that explain tells",
    "queue_full": _LIMITS,
    "queue_timeout": _LIMITS,
}


@dataclass(frozen=True, slots=True)
class Harmed:
    """Clients of one service that met the same."""

    how: str
    """`refused` or `cut`."""
    clients: int
    of: int
    """How many came in that time; those who are cut may have come earlier."""
    reasons: Mapping[str, int]
    """By close reason, the most frequent first."""

    @property
    def first(self) -> str:
        """The most frequent reason."""
        return next(iter(self.reasons))

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to come at once."""
        return self.clients >= self.of * (REFUSED_BAD if self.how == "refused" else CUT_BAD)

    @property
    def advice(self) -> str:
        """What to do about the most frequent reason."""
        return _ADVICE.get(self.first, "")

    def text(self, service: str) -> str:
        """Say it in a line."""
        parts = [
            reason if len(self.reasons) == 1 else f"{reason} {count}"
            for reason, count in self.reasons.items()
        ]
        done = "were refused" if self.how == "refused" else "were cut off"
        return f"{service}: {self.clients} of {self.of} clients in the last minute {done}: {', '.join(parts)}"


def harms(recent: Mapping[str, Any]) -> list[Harmed]:
    """Read what a service's status says of the last minute; nothing if it says nothing: an older data plane's."""
    found = []
    for how in ("refused", "cut"):
        counts = recent.get(how, {})
        clients = sum(counts.values())
        reasons = dict(sorted(counts.items(), key=lambda item: -item[1]))
        of = max(recent.get("connections", 0), clients)
        if clients and (how == "refused" or clients >= of * CUT_SAID):
            found.append(Harmed(how, clients, of, reasons))
    return found
