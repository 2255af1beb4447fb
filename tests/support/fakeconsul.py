"""A Consul that says what a test wants: newer versions' headers, hostile answers, and faults at will.

It blocks like the real one: a query with an index waits until that index is passed or its wait is over.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


def entry(
    service_id: str,
    *,
    node: str = "n1",
    address: str = "10.0.0.1",
    port: Any = 80,
    status: str = "passing",
    **service: Any,
) -> dict[str, Any]:
    """Return an entry of /v1/health/service."""
    checks = [
        {"CheckID": "serfHealth", "Status": "passing", "ServiceID": ""},
        {"CheckID": f"service:{service_id}", "Status": status, "ServiceID": service_id},
    ]
    return {
        "Node": {"Node": node, "Address": "127.0.0.1"},
        "Service": {"ID": service_id, "Address": address, "Port": port, **service},
        "Checks": checks,
    }


@dataclass(frozen=True)
class Asked:
    """One request that arrived."""

    path: str
    query: dict[str, str]
    token: str
    body: bytes
    tags: tuple[str, ...] = ()

    @property
    def blocking(self) -> bool:
        """Whether it waits for a change."""
        return "index" in self.query

    @property
    def stale(self) -> bool:
        """Whether any server may answer it."""
        return "stale" in self.query


@dataclass
class FakeConsul:
    """One agent.

    Attributes:
        services: Entries by service name; change them with `put`.
        headers: Of every answer of a health query, over those that Consul sends.
        filters: What filter expressions mean; another one lets everything through.
        locks: By key, whose it is.
        sessions: What each was made with, by id; they end with `expire`, not by themselves.
        fault: Takes the place of every answer while it is set.
        node: The name and the address of its node.
        asked: Every request so far, but questions whether it answers at all: `pulses` has their datacenters.
    """

    services: dict[str, list[Any]] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    registered: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    """What each check has told last of itself."""
    headers: dict[str, str | None] = field(default_factory=dict)
    filters: dict[str, Callable[[Any], bool]] = field(default_factory=dict)
    fault: Fault | None = None
    token: str = ""
    node: tuple[Any, Any] = ("n1", "10.0.0.1")
    index: int = 10
    asked: list[Asked] = field(default_factory=list)
    pulses: list[str] = field(default_factory=list)
    blocked: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def put(self, service: str, entries: Iterable[Any]) -> None:
        """Set what a service consists of, and wake who waits."""
        self.services[service] = list(entries)
        await self.wake()

    async def wake(self, *, index: int | None = None) -> None:
        """Move the index on, or to a value, and wake who waits."""
        self.index = self.index + 1 if index is None else index
        async with self._changed:
            self._changed.notify_all()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("X-Consul-Token", "")
        tags = tuple(request.query.getall("tag", []))
        if request.path == "/v1/status/leader":
            self.pulses.append(request.query.get("dc", ""))
            return await self.fault(request) if self.fault else web.json_response("127.0.0.1:8300")
        self.asked.append(Asked(request.path, dict(request.query), token, await request.read(), tags))
        if self.fault is not None:
            return await self.fault(request)
        if self.token and token != self.token:
            return web.Response(status=403, text="ACL not found")
        for prefix, handler in (
            ("/v1/health/service/", self._health),
            ("/v1/kv/", self._kv),
            ("/v1/session/", self._session),
            ("/v1/txn", self._txn),
            ("/v1/query/", self._query),
            ("/v1/agent/", self._agent),
        ):
            if request.path.startswith(prefix):
                return await handler(request, request.path.removeprefix(prefix))
        return web.Response(status=404, text="404 page not found")

    async def _block(self, request: web.Request) -> None:
        wait_s = float(request.query.get("wait", "300000ms").removesuffix("ms")) / 1000
        after = int(request.query.get("index", "0"))
        self.blocked += 1
        try:
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        # like Consul, it also returns when the index has gone backwards; and it asks again after
                        # each wake-up: from Python 3.13 on, a waiter that is cancelled wakes another one
                        while after == self.index:
                            await self._changed.wait()
        finally:
            self.blocked -= 1

    async def _health(self, request: web.Request, service: str) -> web.Response:
        if "index" in request.query:
            await self._block(request)
        headers = {
            "X-Consul-Index": str(self.index),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            **self.headers,
        }
        name = f"{request.query['dc']}/{service}" if "dc" in request.query else service
        matches = self.filters.get(request.query.get("filter", ""), lambda _: True)
        tags = set(request.query.getall("tag", []))
        return web.json_response(
            [
                each
                for each in self.services.get(name, [])
                if matches(each) and tags <= set(each["Service"].get("Tags", ()))
            ],
            headers={name: value for name, value in headers.items() if value is not None},
        )

    async def _query(self, request: web.Request, rest: str) -> web.Response:
        name = rest.removesuffix("/execute")
        if name not in self.queries:
            return web.Response(status=404, text="Query not found")
        return web.json_response({"Nodes": self.services.get(self.queries[name], []), "Datacenter": "dc1"})

    async def _kv(self, request: web.Request, path: str) -> web.Response:
        if request.method == "PUT":
            return await self._put(request, path)
        if "index" in request.query:
            await self._block(request)
        if "recurse" in request.query:
            rows = [self._row(key) for key in sorted(self.keys) if key.startswith(path)]
        else:
            rows = [self._row(path)] if path in self.keys else []
        headers = {"X-Consul-Index": str(self.index), "X-Consul-KnownLeader": "true"}
        return web.json_response(rows, headers=headers) if rows else web.Response(status=404, headers=headers)

    def _row(self, path: str) -> dict[str, Any]:
        value, modified = self.keys[path]
        row = {"Key": path, "Value": base64.b64encode(value).decode(), "ModifyIndex": modified}
        return row | ({"Session": self.locks[path]} if path in self.locks else {})

    async def _put(self, request: web.Request, path: str) -> web.Response:
        raw = await request.read()
        session = request.query.get("acquire") or request.query.get("release")
        if "cas" in request.query and int(request.query["cas"]) != self.keys.get(path, (b"", 0))[1]:
            return web.json_response(data=False)
        if session is not None:
            if "acquire" in request.query:
                if session not in self.sessions:
                    return web.Response(status=500, text=f'invalid session "{session}"')
                if self.locks.get(path, session) != session:
                    return web.json_response(data=False)
                self.locks[path] = session
            elif self.locks.get(path) != session:
                return web.json_response(data=False)
            else:
                del self.locks[path]
        self.index += 1
        self.keys[path] = (raw, self.index)
        await self.wake(index=self.index)
        return web.json_response(data=True)

    async def _session(self, request: web.Request, rest: str) -> web.Response:
        call, _, name = rest.partition("/")
        if call == "create":
            body = json.loads(await request.read())
            if float(body["TTL"].removesuffix("s")) < 10:
                return web.Response(status=500, text="Invalid Session TTL, must be between [10s=24h0m0s]")
            made = str(uuid.uuid4())
            self.sessions[made] = body
            return web.json_response({"ID": made})
        if call == "renew":
            if name not in self.sessions:
                return web.Response(status=404, text=f"Session id '{name}' not found")
            return web.json_response([{"ID": name, **self.sessions[name]}])
        await self.expire(name)
        return web.json_response(data=True)

    async def expire(self, session: str) -> None:
        """End a session, as its TTL does: its keys are let go, or deleted if it was made so."""
        behavior = self.sessions.pop(session, {}).get("Behavior", "release")
        for path in [path for path, holder in self.locks.items() if holder == session]:
            del self.locks[path]
            self.index += 1
            if behavior == "delete":
                del self.keys[path]
            else:
                self.keys[path] = (self.keys[path][0], self.index)
        await self.wake()

    async def _txn(self, request: web.Request, _rest: str) -> web.Response:
        """Do all of it or nothing, of the verbs that are used here."""
        steps = [each["KV"] for each in json.loads(await request.read())]
        for number, step in enumerate(steps):
            modified, verb = self.keys.get(step["Key"], (b"", 0))[1], step["Verb"]
            if verb == "lock" and step["Session"] not in self.sessions:
                return web.Response(status=500, text=f'invalid session "{step["Session"]}"')
            holder = self.locks.get(step["Key"], step.get("Session"))
            stale = verb.endswith(("cas", "check-index")) and modified != step["Index"]
            if stale or (verb == "lock" and holder != step["Session"]):
                what = f"failed to {verb} key {step['Key']!r}, index is stale"
                errors = [{"OpIndex": number, "What": what}]
                return web.json_response({"Results": None, "Errors": errors}, status=409)
        self.index += 1
        for step in steps:
            if step["Verb"].startswith("delete"):
                self.keys.pop(step["Key"], None)
                self.locks.pop(step["Key"], None)
            elif "Value" in step:
                self.keys[step["Key"]] = (base64.b64decode(step["Value"]), self.index)
                if step["Verb"] == "lock":
                    self.locks[step["Key"]] = step["Session"]
        await self.wake(index=self.index)
        return web.json_response({"Results": [], "Errors": None})

    async def _agent(self, request: web.Request, rest: str) -> web.Response:
        call, _, name = rest.rpartition("/")
        if rest == "self":
            return web.json_response({"Config": {"NodeName": self.node[0]}, "Member": {"Addr": self.node[1]}})
        if rest == "service/register":
            body = json.loads(await request.read())
            if unknown := body["Check"].keys() - {"TTL", "Status", "DeregisterCriticalServiceAfter"}:
                return web.Response(status=400, text=f"Request decode failed: json: unknown field {unknown}")
            self.registered[body["ID"]] = body
            self.checks[f"service:{body['ID']}"] = body["Check"]["Status"]
        elif call == "service/deregister":
            self.registered.pop(name, None)
            self.checks.pop(f"service:{name}", None)
        elif call == "check/update":
            if name not in self.checks:
                return web.Response(status=500, text=f'CheckID "{name}" does not have associated TTL')
            body = json.loads(await request.read())
            self.checks[name], self.outputs[name] = body["Status"], body["Output"]
        else:
            return web.Response(status=404)
        return web.Response()
