"""What a data plane runs when it starts: its `--config`, its environment, what it ran last, or what a process before it tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataplane.core.health import HealthState
from dataplane.errors import Refused, StartError
from dataplane.ipc.messages import Verdict
from dataplane.net.backend import Backend
from dataplane.node.apply import Applier
from dataplane.node.node import Node
from dataplane.node.running_service import find
from schemas.api import BackendPatch, PushedBy
from schemas.desired import Desired, desired_of, resolve
from schemas.environment import desired_from_environment
from schemas.errors import InvalidDocument, Problem
from schemas.files import at_folder
from schemas.http.headers import name_in_header
from schemas.snapshot import Snapshot, digest
from schemas.system.ownership import explain_error, user_name
from schemas.variables import NOT_SET, Variables, from_environment

MAX_BYTES = 1024 * 1024
DIRECTORY = "is a directory, not a file; Docker makes one where a bind mount's source is missing"


def read_config(path: Path) -> Desired:
    """Read and check a desired-state file: InvalidDocument if it is no regular file, too large, or wrong; or OSError.

    Variables of the node come from the environment alone: Consul is the control plane's.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        # seen to before it is made a file object, which cannot be one of a directory
        if not stat.S_ISREG(mode):
            what = DIRECTORY if stat.S_ISDIR(mode) else "is not a regular file"
            raise InvalidDocument((Problem("", what, None, None),))
        with os.fdopen(handle, "rb", closefd=False) as file:
            raw = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    from schemas.reading.document import scan_document  # noqa: PLC0415 - 15 ms and 1 MiB, where no file is read

    document = at_folder(scan_document(raw), path.parent.absolute())
    return desired_of(document, Variables(from_environment(os.environ), why=NOT_SET))


def _snapshot_of(desired: Desired, generation: int) -> Snapshot:
    found = [
        Problem(f"services.{name}.{key}", f"{what} needs the control plane: lb-control run FILE", None, None)
        for name, service in desired.services.items()
        for key, what, asked in (
            ("discover", "discovery", service.discover is not None),
            ("limits.scope", "a limit of all nodes together", service.limits.scope == "cluster"),
        )
        if asked
    ]
    if found:
        raise InvalidDocument(tuple(found))
    services = resolve(desired, {})
    return Snapshot(generation=generation, services=services, hash=digest(services))


def check_config(path: Path) -> None:
    """See that a desired-state file could be run; raise StartError if not."""
    with _start_errors(str(path)):
        _snapshot_of(read_config(path), 1)


@contextlib.contextmanager
def _start_errors(source: str) -> Iterator[None]:
    """Say of what is wrong where it comes from."""
    try:
        yield
    except InvalidDocument as error:
        raise StartError("\n".join(f"{source}: {problem}" for problem in error.problems), 2) from error
    except OSError as error:
        raise StartError(f"{source}: {explain_error(Path(source), error)}") from error
    except Refused as error:
        raise StartError(f"{source}: {error}") from error


async def load_initial(applier: Applier, config: Path | None) -> None:
    """Run what there is: `--config` first, then the environment, then the last good snapshot; or nothing.

    Raises:
        StartError: `--config` or the environment is wrong, or asks for an address that cannot be had. What was
            saved and cannot be run is no reason not to start: a control plane may know better.
    """
    source, store = str(config) if config else "environment", applier.store
    saved = None
    try:
        saved = await asyncio.to_thread(store.load)
    except (OSError, ValueError, InvalidDocument) as error:
        cause = explain_error(store.path, error) if isinstance(error, OSError) else str(error)
        applier.node.events.emit("saved_snapshot_unusable", path=str(store.path), cause=cause)
    with _start_errors(source):
        desired = read_config(config) if config else desired_from_environment(os.environ)
        if desired is not None:
            snapshot = _snapshot_of(desired, saved.generation if saved and saved.generation else 1)
            if saved is not None and saved.hash != snapshot.hash:
                snapshot = _snapshot_of(desired, saved.generation + 1)
            await applier.restore(snapshot)
            return
    if saved is not None and saved.generation:
        try:
            await applier.restore(saved)
        except Refused as error:
            applier.node.events.emit("saved_snapshot_unusable", path=str(store.path), cause=str(error))


async def reread(applier: Applier, config: Path) -> None:
    """Run what `--config` says now; anything wrong with it leaves everything as it is."""
    events = applier.node.events
    try:
        snapshot = await asyncio.to_thread(lambda: _snapshot_of(read_config(config), 0))
        if snapshot.hash == applier.snapshot.hash:
            events.emit("reread", path=str(config), cause="SIGHUP: the content is what runs already")
            return
        by = PushedBy(
            program="lb-dataplane --config",
            host=name_in_header(socket.gethostname()),
            pid=os.getpid(),
            user=name_in_header(user_name(os.geteuid())),
            source=name_in_header(str(config)),
        )
        await applier.apply({**snapshot.body(), "generation": applier.snapshot.generation + 1}, by=by)
    except (InvalidDocument, OSError, Refused) as error:
        cause = str(error)
        if isinstance(error, InvalidDocument):
            cause = "; ".join(map(str, error.problems))
        elif isinstance(error, OSError):
            cause = error.strerror or cause
        events.emit("apply_refused", path=str(config), cause=cause)


def found(service: str, backend: Backend, *, passed: bool) -> Verdict:
    """Return what active checks have found of a backend."""
    health = backend.health
    return service, backend.id, health.state.value, health.cause, health.reachable, passed


def verdicts_of(node: Node, among: Mapping[str, Iterable[str]] | None = None) -> list[Verdict]:
    """Return all that active checks have found; `among`: of these backends, by service."""
    verdicts = []
    for name, running in node.running.items():
        backends = running.service.backends
        some = backends.values() if among is None else [backends[one] for one in among.get(name, ())]
        verdicts += [
            found(name, one, passed=False) for one in some if one.health.state is not HealthState.UNKNOWN
        ]
    return verdicts


def state_of(applier: Applier) -> dict[str, Any]:
    """Return what runs: the snapshot, the overrides and the health of backends."""
    node = applier.node
    verdicts = verdicts_of(node)
    return {
        "snapshot": applier.snapshot.body(),
        "overrides": [
            (
                service,
                backend,
                {field: getattr(value, "value", value) for field, (value, _) in fields.items()},
            )
            for (service, backend), fields in node.overrides.items()
        ],
        # Five fields each, and what came later beside them: a successor may be older than this process.
        "verdicts": [(*one[:4], one[5]) for one in verdicts],
        "unreachable": [one[:2] for one in verdicts if not one[4]],
        "saved": applier.store.saved,
    }


async def inherit(applier: Applier, state: Mapping[str, Any]) -> None:
    """Take over the overrides and the health that a process before this one knew; its snapshot runs already."""
    node = applier.node
    for service, backend_id, fields in state["overrides"]:
        await applier.patch(service, backend_id, BackendPatch(**fields))
    now = node.reactor.clock()
    unreachable = {(service, backend_id) for service, backend_id in state.get("unreachable", ())}
    for service, backend_id, health, cause, _ in state["verdicts"]:
        there = find(node.running, service, backend_id)
        if there is not None:
            running, backend = there
            reachable = (service, backend_id) not in unreachable
            backend.health.decide(HealthState(health), cause, now, reachable=reachable)
            running.reassess(backend)
