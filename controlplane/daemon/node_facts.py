"""What this node tells the others of its cluster: gathered from what the daemon knows, and from its data planes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from controlplane.cluster.membership import Place
from controlplane.cluster.naming import node_name
from controlplane.core.node_record import Draining, NodeRecord
from controlplane.core.node_totals import NodeTotals
from controlplane.daemon.desired_watch import WatchedFile
from controlplane.daemon.followed_key import FollowedKey
from controlplane.daemon.standing import Standing
from controlplane.daemon.status import Observer
from controlplane.discovery.consul.settings import PREFIX, settings_from_environment, settings_of
from controlplane.operations.controller import Controller
from controlplane.operations.options import now_text
from schemas.desired import Desired
from schemas.variables import FROM_AGENT

VERSION: Final = version("livelb")
NUMBERS_S: Final = 5.0
"""How old the numbers may be: a status of many backends is some work for a data plane."""


def place_of(desired: Desired | None, environ: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that an lb.yaml gives this node; None: it belongs to no cluster.

    Args:
        desired: What was taken last; None: nothing.
        environ: Names the agent if the file has no section `consul`.

    Raises:
        SettingsError: The agent's address cannot be used.
    """
    if desired is None or desired.cluster is None:
        return None
    cluster, consul = desired.cluster, desired.consul
    said = bool(consul.model_fields_set)
    agent = settings_of(consul) if said else settings_from_environment(environ, base=Path())
    return Place(cluster.name, node_name(cluster), cluster.address, agent)


class NodeFacts:
    """Gathers them.

    Args:
        controller: Knows what should run, and whether it does.
        observer: Asks the data planes.
        standing: Knows whether this node is ready.
        file: The watched lb.yaml; None: there is none.
        variables: Returns what an lb.yaml with this section `consul` can take from the node; it may block.
    """

    def __init__(
        self,
        controller: Controller,
        observer: Observer,
        standing: Standing,
        file: WatchedFile | None,
        variables: Callable[[Any], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._controller = controller
        self._observer = observer
        self._standing = standing
        self._file = file
        self._find_variables = variables
        self._started = now_text()
        self._totals = NodeTotals()
        self._counted_at = 0.0
        self._counted_of: list[tuple[int, str]] = []
        self._active = 0
        self._tables: dict[str, str] = {}
        self._variables: Mapping[str, str] = {}
        self._variables_of = -1
        """Of which generation they are."""

    def wanted(self) -> Mapping[str, str]:
        """Return the SHA-256 of the newest content of the key that is watched, by that key; nothing while its canary runs here."""
        key, file = self._key(), self._file
        if key is None or file is None or file.newest is None or self._canary() is not None:
            return {}
        return {key: file.newest}

    async def tell(self, place: Place) -> NodeRecord:
        """Return what there is to tell."""
        await self._standing.look()
        verdict = self._standing.verdict
        drain = verdict.drain.report()
        await self._count()
        fleet, state, proposal = (
            self._controller.fleet,
            self._controller.accepted.state,
            self._controller.proposal,
        )
        wish, pushers = fleet.wish, tuple(fleet.pushers.values())
        error = None if self._file is None else self._file.config_error
        return NodeRecord(
            node=place.node,
            at=self._started,
            started=self._started,
            livelb=VERSION,
            address=place.address,
            key=self._key(),
            content=state.file_digest if state.applied_by is None else None,
            canary=self._canary(),
            generation=state.generation,
            hash=state.hash,
            converged=wish is not None and bool(pushers) and all(each.confirms(wish) for each in pushers),
            error=None if error is None else error["message"],
            ready=verdict.ready,
            reason=verdict.reason,
            since=self._standing.since,
            drain=None if drain is None else Draining(**drain),
            table_hashes=self._tables,
            active=self._active,
            variables=self._variables,
            uses=() if proposal is None else tuple(sorted(proposal.variables)),
            share=state.share if state.scoped else None,
            outcomes=self._totals.outcomes(),
        )

    def _key(self) -> str | None:
        name = "" if self._file is None else self._file.home.name
        return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None

    def _canary(self) -> str | None:
        home = None if self._file is None else self._file.home
        running = home.canary if isinstance(home, FollowedKey) else None
        return None if running is None else running.id

    async def _count(self) -> None:
        """Take in the newest numbers, at most every NUMBERS_S; at once when a data plane runs something else."""
        now, running = asyncio.get_running_loop().time(), self._controller.fleet.running()
        same = running == self._counted_of
        if self._counted_at and now - self._counted_at < NUMBERS_S and same:
            return
        self._counted_at, self._counted_of = now, running
        await self._look_up()
        # A sticky service's old table beside the new hash would be news that is none.
        statuses = await self._observer.statuses(NUMBERS_S if same else 0.0)
        await asyncio.to_thread(self._totals.take, statuses)  # of ten thousand backends it takes a while
        self._active = sum(one["active"] for each in statuses for one in each["services"].values())
        tables: dict[str, set[str]] = {}
        for each in statuses:
            for name, service in each["services"].items():
                if service.get("table_hash"):
                    tables.setdefault(name, set()).add(service["table_hash"])
        self._tables = {name: "+".join(sorted(hashes)) for name, hashes in tables.items()}

    async def _look_up(self) -> None:
        """Find the variables of the lb.yaml that is in force, if that has not been done with success."""
        state = self._controller.accepted.state
        # An agent that did not answer is asked again.
        if state.generation != self._variables_of or not self._variables.keys() >= set(FROM_AGENT):
            consul = None if state.document is None else state.document.get("consul")
            self._variables = await asyncio.to_thread(self._find_variables, consul)
            self._variables_of = state.generation
