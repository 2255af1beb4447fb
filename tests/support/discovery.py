"""A discovery that runs against a Consul, real or not, and can be waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from controlplane.discovery.consul.discovery import ConsulDiscovery
from controlplane.discovery.consul.watch import Pace, Runtime
from schemas.desired import Desired, DesiredService
from schemas.discovery import Consul, ConsulQuery, Discover, Guard
from tests.support.wait import DEADLINE_S

FAST = Pace(
    wait_s=5.0, slack_s=5.0, poll_s=0.02, operator_s=0.02, max_retry_after_s=0.2, rate=200.0, pulse_s=0.0
)
"""A pace that does not let tests wait."""
RUNTIME = Runtime(clock=time.monotonic, wall=time.time, random=lambda: 0.02)
"""Real time, and a chance by which every backoff is short."""


async def eventually(ask: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Return the answer of `ask` as soon as it is true; `what` is said if it never is."""
    answer: Any = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not (answer := ask()):  # noqa: ASYNC110 - what is asked has no event
                await asyncio.sleep(0.002)
    except TimeoutError:
        said = what if isinstance(what, str) else what()
        raise AssertionError(f"waited for {said}; last answer: {answer!r}") from None
    return answer


class Discovering:
    """A discovery with one service for each query.

    Args:
        address: Consul's.
        queries: By service; a text is the name of a Consul service.
        guard: lb.yaml's `guard`.
        options: For `Consul`, `pace` and `answers` apart.
    """

    def __init__(
        self, address: str, queries: Mapping[str, Any], guard: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        self.history: list[dict[str, list[str]]] = []
        """What was published at each change: by service, ids with their states and weights."""
        self.discovery = ConsulDiscovery(
            self._changed,
            lambda _: None,
            pace=options.pop("pace", FAST),
            runtime=options.pop("runtime", RUNTIME),
            answers=options.pop("answers", None),
        )
        self.settings = Consul(address=address, **options)
        self.guard = Guard(**(guard or {}))
        self.update(queries)
        self._task: asyncio.Task[None] | None = None

    def _changed(self) -> None:
        self.history.append(
            {
                service: [f"{item.id} {item.state} {item.weight}" for item in backends]
                for service, backends in self.discovery.discovered().items()
            }
        )

    @property
    def changes(self) -> int:
        """How often something has changed."""
        return len(self.history)

    def update(self, queries: Mapping[str, Any]) -> None:
        """Set the queries."""
        self.follow(
            {
                service: ConsulQuery(**({"service": query} if isinstance(query, str) else query))
                for service, query in queries.items()
            }
        )

    def follow(self, queries: Mapping[str, ConsulQuery]) -> None:
        """Set the queries, as lb.yaml has them."""
        services = {
            service: DesiredService(listen=("127.0.0.1:1",), discover=Discover(consul=query))
            for service, query in queries.items()
        }
        self.discovery.follow(Desired(version=1, services=services, consul=self.settings, guard=self.guard))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.discovery.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        failed = self._task.done()
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            assert not failed

    def ids(self, service: str = "web") -> list[str] | None:
        """Return the ids of a service's backends; None if nothing is known of it."""
        found = self.discovery.discovered().get(service)
        return None if found is None else [backend.id for backend in found]

    def backend(self, name: str, service: str = "web") -> Any:
        """Return one backend."""
        return next(item for item in self.discovery.discovered()[service] if item.id == name)

    def status(self) -> dict[str, Any]:
        """Return the only row of status."""
        (row,) = self.discovery.status()
        return row

    async def shows(self, *ids: str, service: str = "web") -> None:
        """Wait until a service has exactly these backends."""
        wanted = sorted(ids)
        await eventually(
            lambda: self.ids(service) == wanted,
            lambda: f"{service} to have {wanted}, it has {self.ids(service)}",
        )

    async def is_in(self, state: str) -> dict[str, Any]:
        """Wait until status has this state, and return it."""
        await eventually(lambda: self.status()["state"] == state, lambda: f"{state}, it is {self.status()}")
        return self.status()
