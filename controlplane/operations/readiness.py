"""Finding out whether this node is ready: the data planes are asked, and what is on record about taking it out is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from controlplane.core.readiness import Readiness, readiness
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import Asking, ask_all
from controlplane.errors import PlaceError, RefusedError
from controlplane.operations.drain_file import DrainFile

if TYPE_CHECKING:
    from controlplane.dataplanes.fleet import Fleet


def asked(find: Callable[[], Sequence[Asking]], record: DrainFile, timeout_s: float) -> Readiness:
    """Ask, for a command: it is there after `timeout_s`, whatever data planes do; `find` raises PlaceError if there are none."""
    try:
        clients = find()
    except PlaceError as error:
        return readiness(str(error), record.seen())
    outcomes = ask_all(clients, requests.get("/readyz"), timeout_s=timeout_s)
    planes = {each.endpoint.name: None if each.error is None else _words(each.error) for each in outcomes}
    return readiness(planes, record.seen())


async def of_fleet(fleet: Fleet, record: DrainFile, timeout_s: float) -> Readiness:
    """Ask, for the daemon: those that cannot be reached have that against them."""
    answers = await fleet.ask(requests.get("/readyz"), timeout_s)
    planes: dict[str, str | None] = {}
    for endpoint, pusher in fleet.pushers.items():
        answer = answers.get(endpoint, pusher.error or "does not answer")
        planes[endpoint.name] = None if isinstance(answer, dict) else _words(answer)
    return readiness(planes, await asyncio.to_thread(record.seen))


def _words(answer: object) -> str:
    """Say what a data plane has against it: in its own words, if it has said so."""
    return answer.message if isinstance(answer, RefusedError) else str(answer)
