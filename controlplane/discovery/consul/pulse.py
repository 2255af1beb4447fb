"""Whether an agent answers at all: a small question beside the watches, for their silence says nothing.

Theory of operation
-------------------
1. A blocking query may rightly be silent for half a minute, so an agent that hangs looks like one without news.
   `/v1/status/leader` is answered from memory, without any right, and goes the way that the watches go: through the
   agent to a server of the datacenter. It is asked every `pulse_s`, once for all watches of one datacenter.
2. Every answer is a sign of life, whatever it says: what is wrong with it, the watches meet, too.
3. Two questions in a row without an answer are silence: an agent that has lost its server finds another one
   meanwhile. Frozen right after an answer, it is known after 9 s.
4. Silence takes nothing away. It is shown, with the time of the last answer; and when it ends, whoever has failed
   because of it need not sit out a long pause (`notify`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from controlplane.core.backoff import jittered
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.watch import Pace, Runtime

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient

_PATH: Final = "/v1/status/leader"
_MISSES: Final = 2
_AGAIN_S: Final = 0.5
_SILENT: Final = frozenset({"timeout", "unreachable"})


def is_silence(error: ConsulError | None) -> bool:
    """Tell whether a question had no answer at all, good or bad."""
    return error is not None and error.kind in _SILENT


class Pulse:
    """The pulse of an agent, on behalf of one datacenter; empty: the agent's own.

    `notify` is called when it has fallen silent, and when it answers again.
    """

    def __init__(
        self, notify: Callable[[], None], *, pace: Pace, runtime: Runtime, datacenter: str = ""
    ) -> None:
        self.error: ConsulError | None = None
        """How the last question failed, while it is silent; None: it answers, or that is not known yet."""
        self.since: float | None = None
        """Of the last answer before the silence, in monotonic seconds; None: it answers."""
        self._notify = notify
        self._pace = pace
        self._runtime = runtime
        self._params = [("dc", datacenter)] if datacenter else []

    async def run(self, client: ConsulClient) -> None:
        """Ask until cancelled; with a pace of 0 never."""
        pace, runtime = self._pace, self._runtime
        self._set(None, None)
        answered_at, missed = runtime.clock(), 0
        while pace.pulse_s:
            await runtime.sleep(jittered(pace.pulse_s, runtime.random) if missed != 1 else _AGAIN_S)
            error = await self._ask(client)
            if error is None:
                answered_at, missed = runtime.clock(), 0
                self._set(None, None)
            else:
                missed += 1
                if missed >= _MISSES:
                    self._set(error, answered_at)

    async def _ask(self, client: ConsulClient) -> ConsulError | None:
        """Return why there was no answer; None if there was one."""
        try:
            await client.get(_PATH, self._params, timeout_s=self._pace.pulse_timeout_s)
        except ConsulError as error:
            told = ConsulError(
                error.kind, f"{error.detail}, asked again and again; what Consul said last holds"
            )
            return told if is_silence(error) else None
        return None

    def _set(self, error: ConsulError | None, since: float | None) -> None:
        is_news = (error is None) is not (self.error is None)
        self.error, self.since = error, since
        if is_news:
            self._notify()
