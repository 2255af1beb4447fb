"""Data planes that keep to the API and run in memory: for what a real one does not do on command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import LateError, RefusedError, UnreachableError


def body_of(services: dict[str, Any]) -> dict[str, Any]:
    """Return services as a data plane's status shows them."""
    since = "2026-01-01T00:00:00.000Z"
    return {
        name: {
            "mode": "rr",
            "table_hash": None,
            "panic": False,
            "tier": 0,
            "active": 0,
            "queued": 0,
            "listeners": [],
            "totals": {"connections": 0, "closed": {}},
            "backends": [
                {
                    **backend,
                    "overridden": {},
                    "health": {"state": "up", "cause": "", "since": since, "reachable": True},
                    "active": 0,
                    "pooled": 0,
                    "draining_since": None,
                    "totals": {"connections": 0},
                }
                for backend in service["backends"]
            ],
        }
        for name, service in services.items()
    }


class FakeDataPlane:
    """One data plane, client included: `ask` answers as the API says.

    Its faults are switches: `away` refuses connections, `hangs` never answers, `refuses` says no to a
    snapshot that contains a service of that name. `ready` is what `/readyz` tells.
    """

    def __init__(self, name: str = "a") -> None:
        self.endpoint = Endpoint(name, f"/nowhere/dataplane-{name}.sock")
        self.pid = 1
        self.uptime_s: Callable[[], float] = lambda: 0.0
        self.instance: str | None = f"{name}-1"
        """None: an older version, which has none."""
        self.generation = 0
        self.hash = ""
        self.services: dict[str, Any] = {}
        self.pushed_by: dict[str, Any] | None = None
        self.overrides: dict[tuple[str, str, str], Any] = {}
        self.away = False
        self.hangs = False
        self.ready = True
        self.refuses: str | None = None
        self.refusal_status = 422
        self.asked: list[tuple[str, str]] = []
        """Method and path of every request."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def restart(self, *, keeps: bool = True) -> None:
        """Be another process: it knows its snapshot from disk, or nothing; overrides are gone."""
        if self.instance is not None:
            self.instance += "+"  # and the same pid: the first process of a container is always 1
        self.overrides = {}
        if not keeps:
            self.generation, self.hash, self.services = 0, "", {}

    def push_by_hand(self, generation: int, digest: str) -> None:
        """Run what somebody else has pushed."""
        self.generation, self.hash = generation, digest
        self.pushed_by = {
            "program": "lb-control run",
            "host": "b",
            "pid": 7,
            "user": "root",
            "source": "/etc/other.yaml",
            "at": "2026-01-01T00:00:00.000Z",
        }

    async def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Answer a request."""
        await asyncio.sleep(0)
        if self.away:
            raise UnreachableError(self.endpoint.name, "nobody listens")
        if self.hangs:
            raise LateError(self.endpoint.name, timeout_s)
        parts = urlsplit(call.target)
        self.asked.append((call.method, parts.path))
        if call.method == "PATCH":
            return self._patch(parts.path, json.loads(call.body or b""))
        if call.method == "PUT":
            dry = parse_qs(parts.query).get("dry_run") == ["true"]
            return self._put(json.loads(call.body or b""), dry=dry)
        running = {
            "name": self.endpoint.name,
            "pid": self.pid,
            "uptime_s": self.uptime_s(),
            **({} if self.instance is None else {"instance": self.instance}),
            "generation": self.generation,
            "hash": self.hash,
            "pushed_by": self.pushed_by,
        }
        if parts.path == "/readyz" and not self.ready:
            raise RefusedError(self.endpoint.name, 503, {"code": "not_ready", "message": "ending"})
        return {
            "/readyz": {},
            "/v1/info": running,
            "/v1/snapshot": {**running, "services": self.services},
            "/v1/status": {**running, "workers": [], "services": body_of(self.services)},
        }[parts.path]

    def _put(self, body: dict[str, Any], *, dry: bool) -> dict[str, Any]:
        if self.refuses in body["services"]:
            self._refuse(self.refusal_status, "no such thing here")
        older = body["generation"] < self.generation
        if older or (body["generation"] == self.generation and body["hash"] != self.hash):
            self._refuse(409, "older")
        if dry:
            return {"changes": [], "impact": {"drain": [], "pool": [], "remap": {}, "listeners": []}}
        for place in list(self.overrides):
            if self._configured(self.services, place) != self._configured(body["services"], place):
                del self.overrides[place]
        self.generation, self.hash, self.services = body["generation"], body["hash"], body["services"]
        return {"generation": self.generation, "hash": self.hash, "changes": []}

    def _patch(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        _, _, _, service, _, backend = path.split("/")
        for name, value in fields.items():
            place = (unquote(service), unquote(backend), name)
            configured = self._configured(self.services, place)
            if configured is None:
                self._refuse(404, "no such backend")
            self.overrides.pop(place, None)
            if value != configured:
                self.overrides[place] = value
        return {}

    @staticmethod
    def _configured(services: dict[str, Any], place: tuple[str, str, str]) -> Any:
        service, backend, name = place
        for each in services.get(service, {"backends": []})["backends"]:
            if each["id"] == backend:
                return each[name]
        return None

    def _refuse(self, status: int, message: str) -> None:
        raise RefusedError(self.endpoint.name, status, {"code": "refused", "message": message})


class Blocking:
    """The client of a data plane in memory for whoever does not run a loop."""

    def __init__(self, plane: FakeDataPlane) -> None:
        self.endpoint = plane.endpoint
        self._plane = plane

    def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Ask it in a loop of its own."""
        return asyncio.run(self._plane.ask(call, timeout_s=timeout_s))


class ReadyFleet:
    """A fleet of one data plane that runs what it should, and tells whether it is ready."""

    def __init__(self) -> None:
        self.is_ready = True
        self.endpoint = Endpoint("a", "/nowhere/dataplane-a.sock")
        self.error: Exception | None = None
        """Why it cannot be asked; None: it can."""
        self.wish = object()
        self.pushers = {self.endpoint: self}

    def runs(self, wish: object) -> bool:
        """Tell whether it runs a wish."""
        return wish is self.wish

    async def ask(self, _call: requests.Call, _timeout_s: float) -> dict[Endpoint, Any]:
        """Answer `/readyz`."""
        if self.error is not None:
            return {}
        return {self.endpoint: {} if self.is_ready else RefusedError("a", 503, {"message": "not yet"})}
