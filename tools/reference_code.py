"""What the reference is made from: words, metrics, errors, events and routes, read out of the code itself."""

from __future__ import annotations

import ast
import asyncio
import inspect
import random
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from prometheus_client.parser import text_string_to_metric_families

from controlplane import errors as control_errors
from controlplane.daemon import api as control_api
from controlplane.daemon import metrics as control_metrics
from controlplane.dataplanes.pusher import Pushes
from dataplane.api import plane as data_plane
from dataplane.api import routes as data_api
from dataplane.core.health import HealthState
from dataplane.core.tls_cause import TlsCause
from dataplane.net.counters import tls_totals
from dataplane.net.reactor import Reactor
from dataplane.node.apply import Applier
from dataplane.node.listeners import OwnListeners
from dataplane.node.node import Node
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.report.figures import Sample, total
from dataplane.report.metrics import Runs, families
from dataplane.report.reader import Reader
from dataplane.supervisor.tally import worker_families
from dataplane.telemetry.events import Events
from dataplane.tls.service import CertificateView

ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, order=True)
class ErrorCode:
    """A word in the body of an error."""

    code: str
    status: int
    """HTTP."""
    plane: str
    """`data` or `control`."""


@dataclass(frozen=True)
class Family:
    """A metric family."""

    name: str
    """As it is written: a counter's ends in `_total`."""
    kind: str
    help: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """One key of a JSON body."""

    name: str
    kind: str
    doc: str


# --- words ----------------------------------------------------------------------------------------


def member_docs(enum: type[Enum]) -> dict[str, str]:
    """Return the text below each member of an enum, by the member's value; empty where there is none."""
    body = _class_body(inspect.getsource(enum))
    documented = {name: doc for name, doc in _documented(body) if name in enum.__members__}
    return {str(member.value): documented[name] for name, member in enum.__members__.items()}


def _class_body(source: str) -> list[ast.stmt]:
    return next(
        node for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.ClassDef)
    ).body


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield each assigned name of a class with the text below it."""
    for place, statement in enumerate(body):
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        after = body[place + 1] if place + 1 < len(body) else None
        doc = (
            after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        )
        if isinstance(target, ast.Name):
            yield target.id, " ".join(str(doc).split())


def typed_dicts(module: Any) -> dict[str, tuple[str, list[Field]]]:
    """Return the JSON bodies of a module: by class name its docstring and its fields."""
    bodies = {}
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id in {"TypedDict", "Frozen"} for base in statement.bases
        ):
            kinds = {
                each.target.id: ast.unparse(each.annotation)
                for each in statement.body
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            }
            fields = [Field(name, kinds[name], doc) for name, doc in _documented(statement.body)]
            bodies[statement.name] = (ast.get_docstring(statement) or "", fields)
    return bodies


# --- errors ---------------------------------------------------------------------------------------

_HTTP: Final = (("not_found", 404), ("method_not_allowed", 405))
"""What aiohttp says of a path or method that nobody serves; both APIs write it as an error body."""
_MAKERS: Final = frozenset({"Refused", "Refusal"})
_PLANES: Final = {"dataplane": ("data",), "controlplane": ("control",), "schemas": ("data", "control")}
"""Whose code is in a package."""


def error_codes() -> list[ErrorCode]:
    """Return every code that either API may answer with."""
    codes = {ErrorCode(code, status, plane) for code, status in _HTTP for plane in ("data", "control")}
    codes.add(ErrorCode("bad_request", 400, "control"))  # a body that is not JSON
    for path, tree in _modules():
        for call in _calls(tree):
            if _called(call) in _MAKERS and len(call.args) > 1:
                status, code = call.args[0], call.args[1]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    for plane in _PLANES[path.relative_to(ROOT).parts[0]]:
                        codes.add(ErrorCode(str(code.value), int(str(status.value)), plane))
    for found in vars(control_errors).values():
        if (
            inspect.isclass(found)
            and issubclass(found, control_errors.ControlError)
            and "code" in vars(found)
        ):
            codes.add(ErrorCode(found.code, found.status, "control"))
    return sorted(each for each in codes if each.code != control_errors.ControlError.code)


@cache
def _modules() -> tuple[tuple[Path, ast.Module], ...]:
    paths = [path for package in _PLANES for path in sorted((ROOT / package).rglob("*.py"))]
    return tuple((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


# --- events ---------------------------------------------------------------------------------------

_WORD_AT: Final = {"emit": 0, "_emit": 0, "_tell": 0, "heard": 1, "Event": 1}
"""Which argument of these calls is the event's name."""
_DERIVED: Final = {
    "backend_": [
        *(f"backend_{state.value}" for state in HealthState if state is not HealthState.EJECTED),
        "backend_reachable",
        "backend_unreachable",
    ]
}
"""Names that begin in the code and end at run time: with what an active check finds."""


def data_events() -> dict[str, list[str]]:
    """Return the data plane's events by name, each with its fields besides `at`."""
    events: dict[str, set[str]] = {}
    for path, tree in _modules():
        if path.is_relative_to(ROOT / "dataplane"):
            for scope in ast.walk(tree):
                if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    _collect_events(scope, events)
    return {name: sorted(fields) for name, fields in sorted(events.items())}


def _collect_events(scope: ast.AST, events: dict[str, set[str]]) -> None:
    assigned = {
        target.id: node.value
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in _calls(scope):
        place = _WORD_AT.get(_called(call))
        if place is None or len(call.args) <= place:
            continue
        fields = {each.arg for each in call.keywords if each.arg is not None}
        spread = [
            assigned.get(each.value.id)
            for each in call.keywords
            if each.arg is None and isinstance(each.value, ast.Name)
        ]
        for argument in [*call.args[place + 1 :], *spread]:
            if isinstance(argument, ast.Dict):
                fields |= {str(key.value) for key in argument.keys if isinstance(key, ast.Constant)}
        for name in _words(call.args[place], assigned):
            events.setdefault(name, set()).update(fields)


def _words(node: ast.expr, assigned: dict[str, ast.expr]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _words(node.body, assigned)
        yield from _words(node.orelse, assigned)
    elif isinstance(node, ast.Name) and node.id in assigned:
        yield from _words(assigned[node.id], {})
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        yield from _DERIVED[str(node.values[0].value)]


def control_events() -> dict[str, list[str]]:
    """Return the daemon's events by type, each with its other fields."""
    events = {}
    for call in (call for _, tree in _modules() for call in _calls(tree)):
        if _called(call) in {"on_event", "_on_event"} and call.args and isinstance(call.args[0], ast.Dict):
            told = call.args[0]
            keys = [str(key.value) for key in told.keys if isinstance(key, ast.Constant)]
            word = told.values[keys.index("type")]
            events[_text(word)] = [key for key in keys if key != "type"]
    return dict(sorted(events.items()))


# --- routes ---------------------------------------------------------------------------------------


def data_routes() -> set[tuple[str, str]]:
    """Return method and path of every call of a data plane's API."""
    return _routes(data_api.Api(cast("data_plane.DataPlane", SimpleNamespace(report=None))))


def control_routes() -> set[tuple[str, str]]:
    """Return method and path of every call of the daemon's API."""
    return _routes(control_api.Api(cast("control_api.Node", None)))


def _routes(api: data_api.Api | control_api.Api) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in api.application().router.routes()
        if route.method != "HEAD" and route.resource is not None
    }


# --- metrics --------------------------------------------------------------------------------------


def metric_families() -> list[Family]:
    """Return what one data plane tells: collected from a node that runs a service with a sticky table."""
    return asyncio.run(_collected())


async def _collected() -> list[Family]:
    reactor = Reactor(asyncio.get_running_loop(), 1024)
    events = Events(lambda *_, **__: None, time.time)
    node = Node(reactor, events, random.Random(0))
    with tempfile.TemporaryDirectory() as folder:
        service = {
            "listen": [f"unix:{folder}/listen"],
            "mode": "sticky",
            "backends": [f"unix:{folder}/backend"],
            "health": {"active": {"type": "none"}},
        }
        applier = Applier(
            node, SnapshotStore(Path(folder), "x", events), OwnListeners(node, reuse_port=False)
        )
        await applier.apply({"generation": 1, "services": {"web": service}})
        _shake_hands(node)
        shown = CertificateView(
            "tls.certificates[0]", "/x", (), "", "", 0.0, 0.0, "", None, key_readable=False
        )
        files = SimpleNamespace(views=lambda: [shown])
        for running in node.running.values():
            running.service.tls = cast("Any", SimpleNamespace(files=files))
        told = families(await total(Reader(node).parts(each=True)), Runs(1, "", saved=True, uptime_s=0.0))
        await applier.apply({"generation": 2, "services": {}})
    reactor.close()
    return [_described(family) for family in told]


def _shake_hands(node: Node) -> None:
    """Have each thing count a TLS handshake that failed: where there was none, nothing is told of TLS."""
    for running in node.running.values():
        tls_totals(running.service.totals).failed(TlsCause.EXPIRED)
        for backend in running.service.backends.values():
            tls_totals(backend.totals).failed(TlsCause.EXPIRED)


def supervisor_families() -> list[Family]:
    """Return what only a supervisor tells."""
    loads = [({"worker": "0", "pid": "1"}, 0.0)]
    return [_described(family) for family in worker_families(1, loads, Counter())]


def _described(told: tuple[str, str, str, Iterable[Sample]]) -> Family:
    kind, name, help_, samples = told
    labels = tuple(label for label in next(iter(samples))[1] if label != "le")
    return Family(name + ("_total" if kind == "counter" else ""), kind, help_, labels)


_SOURCE: Final[dict[str, Any]] = {
    "name": "consul:a", "services": ["a"], "state": "ok", "since": None, "last_error": None,
    "counts": {"passing": 1}, "held": None, "age_s": 0.0, "polls": 0, "wakes": 0, "resets": 0, "errors": {"timeout": 1},
}  # fmt: skip


_NODES: Final[dict[str, Any]] = {
    "cluster": "edge", "known": True, "error": None, "age_s": 0.0,
    "nodes": [{"name": "n1", "presence": "live", "behind": None, "disagrees": [], "record": {"ready": True, "active": 0}}],
}  # fmt: skip


def control_families() -> list[Family]:
    """Return what the daemon tells of itself, of a data plane, of a source and of a cluster."""
    status = {
        "generation": 1,
        "converged": True,
        "config_error": None,
        "unserved": [{"service": "web", "why": "Consul has not answered"}],
        "overrides": [],
        "dataplanes": [{"name": "main", "socket": "s", "reachable": True, "error": None, "generation": 1}],
        "sources": [_SOURCE],
    }
    return [
        Family(
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            family.documentation,
            tuple(family.samples[0].labels),
        )
        for family in text_string_to_metric_families(
            control_metrics.scrape(status, {"s": Pushes()}, _NODES).decode()
        )
        if family.samples
    ]


def _text(node: ast.expr) -> str:
    """Return a constant's value as text."""
    return str(ast.literal_eval(node))
