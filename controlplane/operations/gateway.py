"""How commands reach the data planes: through the daemon, which is the one writer, or without one.

Without a daemon there is one controller for one command, with the history in the state directory. What a daemon would do is
done by the same code: the same discovery, plan, refusals and pushes. Three things differ, since
nobody is left afterwards who could go on: a change is written down once a data plane runs it, a command about one backend
pushes no snapshot, and a data plane that gets another snapshot meanwhile is told of rather than overruled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

from controlplane.core.report import Seen, node_status
from controlplane.core.share import share_report
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import (
    GRACE_S,
    LOOK_S,
    Asking,
    BlockingClient,
    ask_all,
    in_thread,
)
from controlplane.desired.document import Proposal, Reader
from controlplane.desired.identity import Identity
from controlplane.errors import (
    ControlError,
    GoneError,
    HeldBackError,
    InputError,
    LateError,
    OvertakenError,
    PlaceError,
    RefusedError,
    StoreError,
    UnknownError,
)
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.options import ApplyOptions, Origin, query_of_options
from controlplane.store import Store

if TYPE_CHECKING:
    from controlplane.operations.accepted import Keeping
    from controlplane.operations.controller import Controller
    from schemas.variables import Variables

T = TypeVar("T")
_TRIES: Final = 3
"""With --force, against somebody who pushes at the same time."""
_ANSWER_S: Final = 10.0
"""For the daemon."""
_DAEMON_GRACE_S: Final = 5.0
"""The daemon keeps the deadline, and then still has to say so."""
_INVALID: Final = 422
_UNKNOWN: Final = 404


@dataclass(frozen=True, slots=True)
class Remote:
    """The way to the data planes when a daemon runs; `Direct` can do the same without one.

    Every answer is JSON, in the form that `--json` prints; a `ControlError` is what an operator has to see instead.
    """

    direct: ClassVar = False
    client: BlockingClient

    def look(self, names: frozenset[str], consul: Any) -> Variables:  # noqa: ARG002 - a `Look`
        """Find no variable of the node: those that the daemon has count."""
        from schemas.variables import Variables  # noqa: PLC0415 - pydantic, only where it is needed

        return Variables(placeholders=True)

    def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Return `{changes, impact, dataplanes: [{name, socket, result, error, generation, hash}]}`."""
        call = requests.post("/v1/plan", proposal.document, **query_of_options(options))
        return self._ask(call, options.timeout_s + _DAEMON_GRACE_S)

    def apply(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Return what `plan` returns, and `{generation, hash, converged, warnings}`."""
        call = requests.post("/v1/apply", proposal.document, **query_of_options(options))
        return self._ask(call, options.timeout_s + _DAEMON_GRACE_S)

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Return what `apply` returns, and `{restored}`, the generation whose content it is."""
        body = {} if generation is None else {"generation": generation}
        call = requests.post("/v1/rollback", body, **query_of_options(options))
        return self._ask(call, options.timeout_s + _DAEMON_GRACE_S)

    def patch(self, service: str, backend: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Override fields of a backend; return `{service, id, fields, dataplanes, warnings}`."""
        return self._ask(requests.patch_backend(service, backend, fields), _ANSWER_S)

    def status(self) -> dict[str, Any]:
        """Return the status of the node."""
        return self._ask(requests.get("/v1/status"), _ANSWER_S)

    def nodes(self) -> dict[str, Any]:
        """Return the picture of the cluster, which a daemon alone has."""
        return self._ask(requests.get("/v1/nodes"), _ANSWER_S)

    def snapshot(self) -> dict[str, Any]:
        """Return the snapshot that should run."""
        return self._ask(requests.get("/v1/snapshot"), _ANSWER_S)

    def history(self) -> dict[str, Any]:
        """Return `{history, warnings}`: every known generation, the oldest first, and what cannot be read."""
        return self._ask(requests.get("/v1/history"), _ANSWER_S)

    def _ask(self, call: requests.Call, timeout_s: float) -> dict[str, Any]:
        try:
            return self.client.ask(call, timeout_s=timeout_s)
        except RefusedError as error:
            if error.http_status == _INVALID and error.details:
                raise InputError("", error.details) from error
            if error.http_status == _UNKNOWN:
                raise UnknownError(error.message) from error
            raise HeldBackError(error.message) from error


@dataclass(frozen=True, slots=True)
class Direct:
    """The way to the data planes when no daemon runs."""

    direct: ClassVar = True
    """No daemon runs: the data planes are asked."""
    find: Callable[[], Sequence[Asking]]
    """Makes a client for each data plane; raises `PlaceError` if there is none."""
    store: Store
    by: str
    """Who gives the commands."""
    tell: Callable[[str], None] = lambda _: None
    """Told what is waited for, if that takes longer than somebody expects."""
    record: DrainFile | None = None
    """Where it is written down that this node is taken out; None: nobody wants to know."""
    find_draining: Callable[[], Sequence[Asking]] = tuple
    """Makes a client for each process that has been a data plane, and drains."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Of this process."""

    def look(self, names: frozenset[str], consul: Any) -> Variables:
        """Find the node's variables: a `Look`."""
        return Identity(self.environ, self.store)(names, consul)

    def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Ask every data plane what would change; without one, compare with what was applied last."""
        try:
            clients = self.find()
        except PlaceError:
            clients = ()
        warnings: list[str] = []
        report, _ = self._run(clients, warnings, lambda it: it.plan(proposal, options))
        return _with(warnings, report)

    def apply(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Push to every data plane, each all or nothing, and wait until all run it."""
        return self._change(options, lambda it: it.apply(proposal, options, Origin(self.by, "apply")))

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Apply an earlier generation's lb.yaml."""
        return self._change(options, lambda it: it.rollback(generation, options, self.by))

    def _change(
        self, options: ApplyOptions, change: Callable[[Controller], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        clients = self.find()
        with self._writing(options.timeout_s) as warnings:
            tries = _TRIES if options.force else 1
            while True:
                report, keeping = self._run(clients, warnings, change)
                results, tries = {row["result"] for row in report["dataplanes"]}, tries - 1
                if OvertakenError.code not in results or not tries:
                    break
            if "ok" in results:
                warnings.extend(_written(keeping))
            del report["kept"]
            return _with(warnings, report)

    def patch(self, service: str, backend: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Override fields of a backend on every data plane."""
        clients = self.find()
        with self._writing(LOOK_S) as warnings:
            report, keeping = self._run(
                clients,
                warnings,
                lambda it: it.patch(service, backend, fields, by=self.by, timeout_s=LOOK_S),
            )
            warnings.extend(_written(keeping))
            return _with(warnings, report)

    def status(self) -> dict[str, Any]:
        """Ask every data plane, and whatever has been one and drains, now."""
        draining = self.find_draining()
        try:
            clients = self.find()
        except PlaceError:
            if not draining:
                raise
            clients = ()
        outcomes = ask_all([*clients, *draining], requests.get("/v1/status"), timeout_s=LOOK_S)
        seen = [
            Seen(
                name=each.endpoint.name,
                socket=each.endpoint.location,
                reachable=each.error is None,
                error=None if each.error is None else str(each.error),
                gone_since=each.error.since if isinstance(each.error, GoneError) else None,
                status=each.answer or {},
                draining=number >= len(clients),
            )
            for number, each in enumerate(outcomes)
        ]
        try:
            state = self.store.load()
        except StoreError as error:
            self.tell(f"overrides and the last snapshot are unknown: {error}")
            state = self.store.recover()
        why = "nothing was known of its backends when it was applied, and without a daemon nobody asks again"
        waiting = sorted(set(state.discovered) - set(state.services))
        unserved = [{"service": name, "why": why} for name in waiting]
        share = share_report(state.share, state.scoped, state.services)
        drain = None if self.record is None else self.record.report()
        more = {"unserved": unserved, "share": share, "drain": drain}
        return node_status(seen, state.overrides, configured=state.services) | more

    def snapshot(self) -> dict[str, Any]:
        """Return what the newest data plane runs."""
        outcomes = ask_all(self.find(), requests.get("/v1/snapshot"), timeout_s=LOOK_S)
        answers = [each.answer for each in outcomes if each.answer is not None]
        if not answers:
            failed = "; ".join(f"{each.endpoint.name}: {each.error}" for each in outcomes)
            raise PlaceError(f"no data plane answers: {failed}")
        return max(answers, key=lambda answer: int(answer["generation"]))

    def history(self) -> dict[str, Any]:
        """Read the state directory."""
        return self.store.history().report()

    @contextlib.contextmanager
    def _writing(self, timeout_s: float) -> Iterator[list[str]]:
        """Be the one writer; a state directory that cannot be used is no reason to leave clients unserved."""
        warnings: list[str] = []
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.store.writer(timeout_s=timeout_s))
            except StoreError as error:
                warnings.append(f"nothing is written down: {error}")
            yield warnings

    def _run(
        self,
        clients: Sequence[Asking],
        warnings: list[str],
        job: Callable[[Controller], Awaitable[T]],
    ) -> tuple[T, Keeping]:
        """Have one controller do one thing; what it has to write down waits until it is known whether it came true."""
        from controlplane.dataplanes.fleet import Fleet  # noqa: PLC0415 - pydantic, only where it is needed
        from controlplane.operations.accepted import Keeping  # noqa: PLC0415 - the same
        from controlplane.operations.controller import Controller  # noqa: PLC0415 - the same

        by_endpoint = {client.endpoint: client for client in clients}
        keeping = Keeping(self.store, log=lambda _: None, held=True)

        async def run() -> T:
            controller = Controller(
                keeping,
                lambda on_ahead, on_change: Fleet(
                    lambda: tuple(by_endpoint),
                    connect=lambda endpoint: contextlib.nullcontext(Threaded(by_endpoint[endpoint])),
                    on_ahead=on_ahead,
                    on_change=on_change,
                ),
                reader=Reader(Path(), self.look),
                on_event=lambda _: None,
                log=warnings.append,
                tell=self.tell,
            )
            await controller.load()
            return await _beside(controller.fleet.run(), job(controller))

        return asyncio.run(run()), keeping


Gateway: TypeAlias = Direct | Remote


class Threaded:
    """A blocking client for an event loop: a command loads it in a fraction of the time that an asynchronous one takes."""

    def __init__(self, client: Asking) -> None:
        self.endpoint = client.endpoint
        self._client = client

    async def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request in a thread of its own, and return its answer; LateError if none is there after `timeout_s`."""
        answer = in_thread(lambda: self._client.ask(call, timeout_s=timeout_s))
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                return await asyncio.wrap_future(answer)
        except TimeoutError as error:
            raise LateError(self.endpoint.name, timeout_s) from error


async def _beside(work: Coroutine[Any, Any, None], job: Awaitable[T]) -> T:
    """Return what a job comes to, with something running until then."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        outcome: T | ControlError
        try:
            outcome = await job
        except ControlError as error:  # raised in here it would come out in a group
            outcome = error
        working.cancel()
    if isinstance(outcome, ControlError):
        raise outcome
    return outcome


def _written(keeping: Keeping) -> list[str]:
    """Write down what came true; return what an operator should know of it, if that fails."""
    return [f"applied, but {each}" for each in asyncio.run(keeping.write())]


def _with(warnings: Sequence[str], report: dict[str, Any]) -> dict[str, Any]:
    return {**report, "warnings": [*warnings, *report["warnings"]]}
