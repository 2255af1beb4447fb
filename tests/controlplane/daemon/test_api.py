"""The daemon's API: who may call, what is refused with which status, and what is answered."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket

import pytest
from aiohttp import ClientSession, TCPConnector, UnixConnector, web

from controlplane.daemon.api import MAX_BODY_BYTES, Api
from controlplane.daemon.events import Events
from controlplane.daemon.http import Tcp, bound
from controlplane.daemon.status import Observer
from controlplane.dataplanes.client import DataPlaneClient
from controlplane.errors import UnknownError
from controlplane.operations.options import ApplyOptions, Origin
from schemas.http.reloaded import Renewed
from schemas.system.ownership import user_name
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.test_controller import daemon, document, proposal

WORD = "open-sesame"
APPLY = ApplyOptions(timeout_s=5.0)


class Node:
    """What the API serves, over a data plane in memory."""

    def __init__(self, controller):
        self.controller = controller
        self.events = Events()
        self.observer = Observer(controller, tuple, DataPlaneClient)
        self.picture = None

    async def status(self):
        """Return the status of the node."""
        return await self.observer.status([], None)

    def nodes(self):
        """Return the picture of the cluster."""
        if self.picture is None:
            raise UnknownError("this node belongs to no cluster")
        return self.picture


@contextlib.asynccontextmanager
async def serving(tmp_path, *, tcp=False, token=None):
    """Serve the API; yields a session, the base URL, the controller and the data plane."""
    plane = FakeDataPlane()
    async with contextlib.AsyncExitStack() as stack:
        controller = await stack.enter_async_context(daemon(tmp_path / "state", [plane]))
        await controller.apply(proposal(), APPLY, Origin("op", "apply"))
        if tcp:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            known = None if token is None else Renewed((), lambda: token, wrong=())
            who, connector, base = Tcp(address, known), TCPConnector(), f"http://{address}"
        else:
            listener = stack.enter_context(bound(tmp_path / "control.sock"))
            who, connector, base = None, UnixConnector(str(tmp_path / "control.sock")), "http://localhost"
        node = Node(controller)
        api = Api(node, who)
        runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()
        session = await stack.enter_async_context(ClientSession(connector=connector))
        yield session, base, node, plane
        node.events.end()


async def call(session, method, url, body=None, **headers):
    """Make a call; return the status and the decoded body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, url, data=data, headers=named) as response:
        return response.status, await response.json()


async def test_apply_over_the_socket_is_by_the_peer(tmp_path):
    """The kernel says who applies, and the history keeps it."""
    async with serving(tmp_path) as (session, base, _, plane):
        status, report = await call(session, "POST", f"{base}/v1/apply?timeout=5s", document(2))
        assert (status, report["converged"], report["generation"]) == (200, True, 2)
        assert plane.generation == 2
        _, history = await call(session, "GET", f"{base}/v1/history")
    assert history["history"][-1]["by"] == user_name(os.geteuid())


async def test_plan_changes_nothing(tmp_path):
    """A plan is a dry run."""
    async with serving(tmp_path) as (session, base, _, plane):
        status, report = await call(session, "POST", f"{base}/v1/plan", document(2))
        assert (status, set(report)) == (200, {"changes", "impact", "dataplanes", "unserved", "warnings"})
        assert plane.generation == 1


async def test_patch_status_snapshot_rollback(tmp_path):
    """An override shows in the status with who said it; the snapshot is what was accepted."""
    async with serving(tmp_path) as (session, base, _, plane):
        url = f"{base}/v1/services/web/backends/10.0.0.1:1"
        status, report = await call(session, "PATCH", url, {"state": "drain"})
        assert (status, report["dataplanes"][0]["result"]) == (200, "ok")
        _, shown = await call(session, "GET", f"{base}/v1/status")
        assert shown["converged"]
        assert [(each["id"], each["value"]) for each in shown["overrides"]] == [("10.0.0.1:1", "drain")]
        _, snapshot = await call(session, "GET", f"{base}/v1/snapshot")
        assert snapshot["hash"] == plane.hash
        assert snapshot["services"]["web"]["backends"][0]["state"] == "enabled"
        await call(session, "POST", f"{base}/v1/apply", document(2))
        status, report = await call(session, "POST", f"{base}/v1/rollback", {})
        assert (status, report["restored"], report["generation"]) == (200, 1, 3)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/apply", b"{", 400, "bad_request"),
        ("POST", "/v1/apply", b"[" * 100_000, 400, "bad_request"),
        ("POST", "/v1/apply", b"[]", 422, "invalid"),
        ("POST", "/v1/apply", {"version": 1, "services": {"web": {}}}, 422, "invalid"),
        ("POST", "/v1/apply?timeout=soon", document(), 422, "invalid"),
        ("POST", "/v1/apply?tiemout=5s", document(), 422, "invalid"),
        ("POST", "/v1/rollback", {"generation": "1"}, 422, "invalid"),
        ("POST", "/v1/rollback", {"generation": 99}, 404, "unknown"),
        ("PATCH", "/v1/services/web/backends/10.0.0.1:1", {"weight": 300}, 422, "invalid"),
        ("PATCH", "/v1/services/web/backends/10.0.0.1:1", {}, 422, "invalid"),
        ("PATCH", "/v1/services/web/backends/nobody", {"weight": 3}, 404, "unknown"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("GET", "/v1/apply", None, 405, "method_not_allowed"),
    ],
)
async def test_refusals_have_one_body(tmp_path, method, path, body, status, code):
    """Every error has code, message and details, and changes nothing."""
    async with serving(tmp_path) as (session, base, _, plane):
        got, error = await call(session, method, base + path, body)
        assert (got, error["code"], set(error)) == (status, code, {"code", "message", "details"})
        assert (plane.generation, plane.overrides) == (1, {})


async def chunks():
    """Send a body without saying its length."""
    for _ in range(MAX_BODY_BYTES // 65536 + 1):
        yield b" " * 65536


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_that_is_too_large_is_413(tmp_path, chunked):
    """More than 8 MiB is refused, also when its length is not announced."""
    async with serving(tmp_path) as (session, base, _, _):
        data = chunks() if chunked else io.BytesIO(b" " * (MAX_BODY_BYTES + 1))
        async with session.post(f"{base}/v1/apply", data=data) as response:
            assert (response.status, (await response.json())["code"]) == (413, "too_large")


async def test_no_web_page_may_change_anything_over_the_socket(tmp_path):
    """Whatever Origin a mutation names, it is foreign; reading is no mutation."""
    async with serving(tmp_path) as (session, base, _, plane):
        status, error = await call(
            session, "POST", f"{base}/v1/apply", document(2), Origin="http://localhost"
        )
        assert (status, error["code"], plane.generation) == (403, "foreign_origin", 1)
        status, _ = await call(session, "GET", f"{base}/v1/status", Origin="http://localhost")
        assert status == 200


async def test_tcp_without_a_token_is_read_only(tmp_path):
    """Anybody on the machine may look, nobody may change."""
    async with serving(tmp_path, tcp=True) as (session, base, _, plane):
        assert (await call(session, "GET", f"{base}/v1/status"))[0] == 200
        status, error = await call(session, "POST", f"{base}/v1/apply", document(2))
        assert (status, error["code"], plane.generation) == (403, "read_only", 1)


async def test_tcp_with_a_token_needs_it(tmp_path):
    """Without the token nothing is shown; with it, the same page's origin may change things, others not."""
    async with serving(tmp_path, tcp=True, token=WORD) as (session, base, _, plane):
        assert (await call(session, "GET", f"{base}/v1/status"))[0] == 401
        assert (await call(session, "GET", f"{base}/v1/status", Authorization="Bearer no"))[0] == 401
        known = {"Authorization": f"Bearer {WORD}"}
        status, _ = await call(
            session, "POST", f"{base}/v1/apply", document(2), **known, Origin="http://evil.example"
        )
        assert (status, plane.generation) == (403, 1)
        status, _ = await call(session, "POST", f"{base}/v1/apply", document(2), **known, Origin=base)
        assert (status, plane.generation) == (200, 2)


async def test_foreign_host_is_refused(tmp_path):
    """A name that leads here by somebody else's DNS is not served."""
    async with serving(tmp_path, tcp=True) as (session, base, _, _):
        status, error = await call(session, "GET", f"{base}/v1/status", Host="evil.example")
        assert (status, error["code"]) == (403, "foreign_host")


async def test_events_are_streamed(tmp_path):
    """What happens is told to whoever follows, and the stream ends with the daemon."""
    async with serving(tmp_path) as (session, base, node, _), session.get(f"{base}/v1/events") as response:
        assert await response.content.readline() == b": livelb control events\n"
        await response.content.readline()
        node.events.publish({"type": "generation", "generation": 2})
        assert await response.content.readline() == b"event: generation\n"
        assert json.loads((await response.content.readline()).removeprefix(b"data: "))["generation"] == 2
        node.events.end()
        assert (await response.content.read()).strip() == b""


async def test_slow_reader_of_events_keeps_the_newest():
    """A reader that does not read loses the oldest events, and holds up nobody."""
    events = Events()
    reader = events.follow(60.0)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    for number in range(1000):
        events.publish({"type": "x", "number": number})
    assert (await first)["number"] > 0
    last = None
    for _ in range(255):
        last = await anext(reader)
    assert last == {"type": "x", "number": 999}
    await reader.aclose()


async def test_the_nodes_of_the_cluster(tmp_path):
    """Their picture; a node that is in no cluster says so."""
    async with serving(tmp_path) as (session, base, node, _):
        status, body = await call(session, "GET", f"{base}/v1/nodes")
        assert (status, body["code"]) == (404, "unknown")
        node.picture = {"cluster": "edge", "nodes": []}
        assert await call(session, "GET", f"{base}/v1/nodes") == (200, node.picture)
