"""The data plane's API on its Unix socket: what is taken, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from schemas.snapshot import digest, parse_snapshot
from tests.dataplane.net.through import QUIET, through
from tests.support.backends import LineServer
from tests.support.clients import ask, dial
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def server():
    """A server that says that it is one."""
    with LineServer("one") as server:
        yield server


@pytest.fixture
def service(plane, server):
    """A service with one backend."""
    with through(plane, server.address) as service:
        yield service


def body_of(service, generation, **changed):
    """Return a snapshot of `service`, with other options."""
    options = {**service.options, **changed}
    return {"version": 1, "generation": generation, "services": {service.name: options}}


def put(plane, body, query="", **headers):
    """PUT a snapshot; return status and body."""
    return plane.request("PUT", f"/v1/snapshot{query}", body, headers)


class TestRefusals:
    """Anything but 200: nothing has changed, and the body says why."""

    @pytest.fixture(autouse=True)
    def unchanged(self, plane, service):
        """Compare what runs before and after."""
        before = plane.get("/v1/snapshot"), ask(service.address)
        yield
        assert (plane.get("/v1/snapshot"), ask(service.address)) == before

    def refused(self, answer, status, code):
        """Assert a refusal with the one body that errors have."""
        got, body = answer
        assert (got, body["code"]) == (status, code)
        assert body.keys() == {"code", "message", "details"}
        assert body["message"]
        return body

    @pytest.mark.parametrize("query", ["", "?dry_run=true"])
    def test_generations(self, plane, service, query):
        """409 for an older generation, and for the same one with another content."""
        now = plane.get("/v1/info")["generation"]
        self.refused(put(plane, body_of(service, now - 1), query), 409, "older_generation")
        self.refused(put(plane, body_of(service, now, mode="random"), query), 409, "generation_conflict")

    @pytest.mark.parametrize("query", ["", "?dry_run=true"])
    def test_if_match(self, plane, service, query):
        """412 unless the hash in If-Match is the one that runs."""
        now = plane.get("/v1/info")
        body = body_of(service, now["generation"] + 1, mode="random")
        refused = put(plane, body, query, **{"If-Match": "0" * 64})
        assert now["hash"] in self.refused(refused, 412, "hash_mismatch")["message"]

    @pytest.mark.parametrize("query", ["", "?dry_run=true"])
    @pytest.mark.parametrize(
        ("changed", "path"),
        [
            ({"mode": "fastest"}, "mode"),
            ({"listen": "127.0.0.1"}, "listen"),
            ({"backends": ["nowhere"]}, "backends[0]"),
            ({"pool": {"min_idle": 5, "max_idle": 4}}, "pool.min_idle"),
            ({"proxy_protocol": {"accept": "required"}}, "proxy_protocol.trusted"),
            ({"proxy_protocol": {"send": "v1"}, "pool": {"mode": "reuse"}}, "proxy_protocol.send"),
            ({"colour": "red"}, "colour"),
            ({"timeouts": {"idle": "soon"}}, "timeouts.idle"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_invalid(self, plane, service, query, changed, path):
        """422 with the path of what is wrong."""
        body = body_of(service, 10**9, **changed)
        details = self.refused(put(plane, body, query), 422, "invalid")["details"]
        assert any(f"services.{service.name}.{path}" in detail["path"] for detail in details), details
        assert all(detail["message"] for detail in details)

    @pytest.mark.parametrize("body", [[], None, 1, "text", {}, {"generation": "x"}, {"services": []}])
    def test_not_a_snapshot(self, plane, body):
        """422 for JSON that is no snapshot at all."""
        self.refused(put(plane, json.dumps(body).encode()), 422, "invalid")

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"version: 1", b"1" * 10_000])
    def test_not_json(self, plane, body):
        """400 for what is no JSON."""
        self.refused(put(plane, body), 400, "not_json")

    def test_wrong_hash(self, plane, service):
        """422 if the hash in the body is not that of the services."""
        self.refused(put(plane, {**body_of(service, 10**9), "hash": "0" * 64}), 422, "invalid")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_too_large(self, plane, chunked):
        """413 above 8 MiB, announced or not."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(plane.socket))
            sock.sendall(
                b"PUT /v1/snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            )
            piece = b" " * 65536
            try:
                if chunked:
                    sock.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
                    for _ in range(140):
                        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                    sock.sendall(b"0\r\n\r\n")
                else:
                    sock.sendall(b"Content-Length: %d\r\n\r\n" % (140 * len(piece)))
                    for _ in range(140):
                        sock.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may answer before it has everything
            response = http.client.HTTPResponse(sock)
            response.begin()
            self.refused((response.status, json.loads(response.read())), 413, "too_large")

    @pytest.mark.parametrize("query", ["", "?dry_run=true"])
    def test_an_address_in_use(self, plane, service, query):
        """503 names the address that cannot be had; the other new ones are closed again."""
        with socket.create_server(("127.0.0.1", 0)) as taken, HeldPort() as free:
            used = f"127.0.0.1:{taken.getsockname()[1]}"
            body = body_of(service, 10**9, listen=[service.address, free.address, used])
            refused = self.refused(put(plane, body, query), 503, "bind_failed")
            assert used in refused["message"]
            with pytest.raises(ConnectionRefusedError):
                dial(free.address)

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost"])
    def test_a_web_page(self, plane, service, origin):
        """403 for a mutation that a web page makes."""
        answer = put(plane, body_of(service, 10**9), Origin=origin)
        self.refused(answer, 403, "foreign_origin")
        path = f"/v1/services/{service.name}/backends/x"
        self.refused(plane.request("PATCH", path, {"weight": 0}, {"Origin": origin}), 403, "foreign_origin")

    @pytest.mark.parametrize(
        ("patch", "status"),
        [
            ({"weight": 257}, 422),
            ({"weight": -1}, 422),
            ({"weight": "1"}, 422),
            ({"state": "sleeping"}, 422),
            ({"tier": 1}, 422),
            ({}, 422),
            ([], 422),
        ],
    )
    def test_patches(self, plane, service, server, patch, status):
        """422 for an override that is none."""
        path = f"/v1/services/{service.name}/backends/{server.address}"
        self.refused(plane.request("PATCH", path, patch), status, "invalid")

    @pytest.mark.parametrize(
        ("weight", "refused", "place"),
        [
            (257, (422, "invalid"), "backends.nobody.weight"),
            (1, (404, "no_such_backend"), "backends.nobody"),
        ],
    )
    def test_one_of_many_patches(self, plane, service, server, weight, refused, place):
        """The error names the place, and nothing is applied."""
        path = f"/v1/services/{service.name}/backends"
        patches = {server.address: {"weight": 9}, "nobody": {"weight": weight}}
        answer = plane.request("PATCH", path, {"backends": patches})
        self.refused(answer, *refused)
        assert [one["path"] for one in answer[1]["details"]] == [place]
        assert plane.backend(service.name, server.address)["weight"] == 1

    def test_draining_all(self, plane, service, server):
        """A connection in place gets its deadline, and a new one is served; a body that says nothing else is refused."""
        for body in ({}, {"draining": "yes"}, {"draining": True, "when": 1}):
            self.refused(plane.request("PUT", "/v1/drain", body), 422, "invalid")
        for draining in (True, False):
            assert plane.request("PUT", "/v1/drain", {"draining": draining}) == (200, {"draining": draining})
            assert plane.backend(service.name, server.address)["state"] == "enabled"

    def test_unknown_names(self, plane, service):
        """404 for a service or backend that does not exist."""
        patch = {"weight": 1}
        answer = plane.request("PATCH", f"/v1/services/{service.name}/backends/nobody", patch)
        self.refused(answer, 404, "no_such_backend")
        self.refused(plane.request("PATCH", "/v1/services/no/backends/nobody", patch), 404, "no_such_service")
        many = {"backends": {"nobody": patch}}
        self.refused(plane.request("PATCH", "/v1/services/no/backends", many), 404, "no_such_service")
        self.refused(plane.request("GET", "/v1/explain?service=no&client=127.0.0.1"), 404, "no_such_service")
        assert plane.request("GET", "/v1/nothing")[0] == 404

    @pytest.mark.parametrize("query", ["", "service={0}", "service={0}&client=me", "client=127.0.0.1"])
    def test_bad_questions(self, plane, service, query):
        """422 for an explanation of nothing."""
        self.refused(plane.request("GET", f"/v1/explain?{query.format(service.name)}"), 422, "invalid")

    @pytest.mark.parametrize("path", ["/v1/snapshot", "/v1/status", "/metrics", "/livez"])
    def test_methods(self, plane, path):
        """405 for a method that a path does not have: no GET changes anything, and nothing else is guessed."""
        assert plane.request("POST", path, {})[0] == 405
        assert plane.request("DELETE", path)[0] == 405


class TestOverridesTold:
    """Events say when an operator's word begins and ceases to hold."""

    def told(self, plane, service):
        """Return the events about overrides so far."""
        lines = [json.loads(line) for line in plane.output.splitlines() if '"event": "override' in line]
        return [each for each in lines if each["service"] == service.name]

    def test_an_override_is_told_when_it_begins_and_when_it_ends(self, plane, service, server):
        """Saying the same again, or taking back what does not hold, is no event."""
        path = f"/v1/services/{service.name}/backends/{server.address}"
        patches = [
            {"state": "enabled"},
            {"state": "drain"},
            {"state": "drain"},
            {"state": "drain", "weight": 7},
        ]
        patches += [{"state": "enabled", "weight": 8}, {"weight": 1}, {"weight": 1}]
        for patch in patches:
            assert plane.request("PATCH", path, patch)[0] == 200
        wait_for(lambda: len(self.told(plane, service)) >= 5, "the log")
        told = self.told(plane, service)
        assert [(each["event"], each.get("state"), each.get("weight")) for each in told] == [
            ("override", "drain", None),
            ("override", None, 7),
            ("override", None, 8),
            ("override_ended", "enabled", None),
            ("override_ended", None, 1),
        ]

    def test_a_snapshot_that_ends_an_override_is_told(self, plane, service, server):
        """What lb.yaml says anew about a field counts, and the log says since when; the other field stays."""
        path = f"/v1/services/{service.name}/backends/{server.address}"
        assert plane.request("PATCH", path, {"state": "drain", "weight": 7})[0] == 200
        backend = {"address": server.address, "weight": 3}
        plane.put_snapshot({service.name: {**service.options, "backends": [backend]}})
        wait_for(lambda: len(self.told(plane, service)) >= 2, "the log")
        _, ended = self.told(plane, service)
        assert (ended["event"], ended["backend"], ended.get("state"), ended["weight"]) == (
            "override_ended",
            server.address,
            None,
            3,
        )
        assert plane.backend(service.name, server.address)["state"] == "drain"


class TestSnapshot:
    """`PUT /v1/snapshot` and what it answers."""

    def test_the_same_again(self, plane, service):
        """The same generation with the same content is taken, and changes nothing."""
        now = plane.get("/v1/info")
        status, body = put(plane, body_of(service, now["generation"]))
        assert (status, body) == (200, {"generation": now["generation"], "hash": now["hash"], "changes": []})

    def test_the_hash_is_that_of_the_content(self, plane, service):
        """The hash covers `services` only, in whatever way they are written down."""
        now = plane.get("/v1/info")
        body = body_of(service, now["generation"] + 1)
        assert now["hash"] == digest(parse_snapshot(body).services)
        status, answer = put(plane, body, **{"If-Match": f'"{now["hash"]}"'})
        assert (status, answer["hash"], answer["changes"]) == (200, now["hash"], [])
        plane._generation = plane.get("/v1/info")["generation"]
        assert plane._generation == now["generation"] + 1

    def test_every_default_is_there(self, plane, service):
        """What runs is written out in full."""
        ours = plane.get("/v1/snapshot")["services"][service.name]
        assert ours["backends"][0].keys() == {"id", "address", "weight", "tier", "state"}
        assert ours["timeouts"].keys() >= {"connect", "idle", "half_closed", "lifetime", "proxy_header"}
        assert ours["drain"] == {"timeout": "1m", "close": "10s"}

    def test_a_dry_run_changes_nothing(self, plane, service, server):
        """`dry_run` tells changes and impact, from live counters, and leaves everything as it is."""
        before = plane.get("/v1/snapshot")
        with HeldPort() as port, dial(service.address):
            service.wait(lambda now: now["active"] == 1)
            body = body_of(service, 10**9, backends=[], listen=[port.address], mode="random")
            status, answer = put(plane, body, "?dry_run=true")
            assert status == 200
            assert {
                "action": "remove",
                "kind": "backend",
                "service": service.name,
                "id": server.address,
            } in answer["changes"]
            assert answer["impact"]["drain"] == [
                {"service": service.name, "id": server.address, "connections": 1}
            ]
            assert {(one["action"], one["address"]) for one in answer["impact"]["listeners"]} == {
                ("bind", port.address),
                ("close", service.address),
            }
            with pytest.raises(ConnectionRefusedError):
                dial(port.address)
        assert plane.get("/v1/snapshot") == before

    def test_impact_on_the_pool_and_on_sticky_clients(self, plane, server):
        """A plan counts pooled connections that would be closed, and the share of clients that would move."""
        pool = {"mode": "preconnect", "min_idle": 3}
        with (
            LineServer("two") as two,
            through(plane, server.address, two.address, pool=pool, mode="sticky") as service,
        ):
            service.wait(lambda now: all(backend["pooled"] == 3 for backend in now["backends"]))
            body = body_of(service, 10**9, backends=[server.address])
            impact = put(plane, body, "?dry_run=true")[1]["impact"]
            assert impact["pool"] == [{"service": service.name, "id": two.address, "connections": 3}]
            assert 40 < float(impact["remap"][service.name].rstrip("%")) < 60
            impact = put(plane, body_of(service, 10**9), "?dry_run=true")[1]["impact"]
            assert impact["remap"][service.name] == "0%"

    def test_readiness(self, plane, service):
        """Ready with a snapshot; alive always."""
        assert plane.request("GET", "/readyz") == (200, {"status": "ok"})
        assert plane.request("GET", "/livez") == (200, {"status": "ok"})


class TestExplain:
    """`GET /v1/explain` tells what really happens."""

    def test_it_agrees_with_the_picks(self, plane, server):
        """The first candidate is who answers, for a client of each address, and after each pick."""
        with LineServer("two") as two, LineServer("three") as three:
            for mode in ("rr", "sticky", "leastconn"):
                servers = {one.address: one.name for one in (server, two, three)}
                with through(plane, *servers, mode=mode) as service:
                    for number in range(1, 10):
                        client = f"127.0.0.{number}"
                        service.wait(lambda now: now["active"] == 0)
                        explained = plane.get(f"/v1/explain?service={service.name}&client={client}")
                        assert explained["client"] == client
                        assert len(explained["candidates"]) == 3
                        first = servers[explained["candidates"][0]["id"]]
                        assert ask(service.address, source=client) == f"{first}:hello\n".encode()

    def test_where_a_name_leads(self, plane, server):
        """With a name or protocols, it tells which service takes the client, and what it gets there."""
        with LineServer("two") as two, through(plane, server.address, match={"sni": ["a.example"]}) as one:
            other = {"listen": one.address, "backends": [two.address], **QUIET}
            plane.put_snapshot({one.name: one.options, "rest": {**other, "match": {"alpn": ["h2", "x"]}}})
            path = "/v1/explain?client=127.0.0.1"
            told = plane.get(f"{path}&sni=A.example.")
            assert (told["service"], told["routes"]) == (
                one.name,
                [{"address": one.address, "service": one.name}],
            )
            assert [each["id"] for each in told["candidates"]] == [server.address]
            assert plane.get(f"{path}&alpn=y&alpn=h2")["service"] == "rest"
            self.refused(plane.request("GET", f"{path}&sni=b.example"), "no service takes this client")
            self.refused(plane.request("GET", f"{path}&sni=a.example&service=no"), "there is no service no")
            assert plane.request("GET", "/v1/explain?sni=a.example")[0] == 422
            status = plane.status()["services"]
            assert status["rest"]["match"] == {"sni": [], "alpn": ["h2", "x"], "source": []}

    def refused(self, answer, text):
        """Assert that nobody takes it, and why."""
        status, body = answer
        assert (status, text in body["message"]) == (404, True), body

    def test_who_is_skipped(self, plane, server):
        """Everybody is either a candidate or skipped with a reason."""
        backends = [
            server.address,
            {"address": "127.0.0.1:1", "id": "drained", "state": "drain"},
            {"address": "127.0.0.1:1", "id": "disabled", "state": "disabled"},
            {"address": "127.0.0.1:1", "id": "weightless", "weight": 0},
        ]
        with through(plane, *backends, limits={"per_backend": 1}) as service:
            path = f"/v1/explain?service={service.name}&client=127.0.0.1"
            skipped = {one["id"]: one["reason"] for one in plane.get(path)["skipped"]}
            assert skipped == {"drained": "drain", "disabled": "disabled", "weightless": "weight_zero"}
            with dial(service.address):
                service.wait(lambda now: now["active"] == 1)
                explained = plane.get(path)
                assert explained["candidates"] == []
                assert {"id": server.address, "reason": "limit_per_backend"} in explained["skipped"]


class Events:
    """A follower of `GET /v1/events`."""

    def __init__(self, plane, last=None):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(plane.socket))
        header = f"Last-Event-ID: {last}\r\n" if last is not None else ""
        self.sock.sendall(f"GET /v1/events HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        self.response = response
        assert response.readline().startswith(b":")
        assert response.readline() == b"\n"

    def next(self, kind):
        """Return the number and the fields of the next event of a kind."""
        while True:
            fields = {}
            while line := self.response.readline().decode().rstrip("\n"):
                if not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
            if fields.get("event") == kind:
                return fields["id"], json.loads(fields["data"])

    def close(self):
        """Stop following."""
        self.response.close()
        self.sock.close()


def pushed_by(**changed):
    """Write the header of a push."""
    who = {
        "program": "lb-control run",
        "host": "b",
        "pid": 7,
        "user": "root",
        "source": "/etc/b.yaml",
        **changed,
    }
    return {"Livelb-Pushed-By": json.dumps(who)}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_pushed(workers, server):
    """Who pushed what runs is told to whoever asks, and in the event; a later one who does not say is not taken for it."""
    with HeldPort() as port, DataPlane(["--workers", workers]) as plane:
        body = {"version": 1, "services": {"s": {"listen": port.address, "backends": [server.address]}}}
        assert plane.get("/v1/info")["pushed_by"] is None
        status, _ = plane.request("PUT", "/v1/snapshot", {**body, "generation": 1}, pushed_by())
        assert status == 200
        told = plane.get("/v1/info")["pushed_by"]
        assert told.pop("at").endswith("Z")
        assert told == json.loads(pushed_by()["Livelb-Pushed-By"])
        follower = Events(plane, last=0)
        assert follower.next("applied")[1]["by"] == "lb-control run of root (pid 7 on b), from /etc/b.yaml"
        follower.close()
        status, _ = plane.request("PUT", "/v1/snapshot", {**body, "generation": 1}, pushed_by(pid=8))
        assert (status, plane.get("/v1/info")["pushed_by"]["pid"]) == (200, 7), "nothing was changed"
        plane.request("PUT", "/v1/snapshot", {**body, "generation": 2})
        assert plane.get("/v1/info")["pushed_by"] is None


@pytest.mark.parametrize(
    "header",
    [
        {"Livelb-Pushed-By": "root"},
        {"Livelb-Pushed-By": "{}"},
        pushed_by(pid=0),
        pushed_by(more=1),
        pushed_by(user=""),
    ],
    ids=str,
)
def test_who_pushed_is_checked(plane, header):
    """What says who pushes is checked as strictly as the rest, and nothing is changed."""
    before = plane.get("/v1/info")["generation"]
    body = {"version": 1, "generation": before + 1, "services": {}}
    status, answer = plane.request("PUT", "/v1/snapshot", body, header)
    assert (status, answer["code"], plane.get("/v1/info")["generation"]) == (422, "invalid", before)


def test_events(plane, server):
    """Followers hear of generations, drains and health as they happen, and later ones of what they missed."""
    follower = Events(plane)
    with through(plane, server.address) as service:
        first, applied = follower.next("applied")
        assert applied["generation"] == plane.get("/v1/info")["generation"]
        assert applied["at"].endswith("Z")
        plane.request("PATCH", f"/v1/services/{service.name}/backends/{server.address}", {"state": "drain"})
        _, drained = follower.next("drain")
        assert (drained["service"], drained["backend"]) == (service.name, server.address)
        follower.close()
        again = Events(plane, last=first)
        assert again.next("drain")[1] == drained
        again.close()
        foreign = Events(plane, last="0123456789abcdef-1000000")
        while foreign.next("drain")[1] != drained:  # an id of another process says nothing of this one
            pass
        foreign.close()
    assert ask_live(plane), "a follower that left does no harm"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_verdicts_of_others(workers, server):
    """PUT /v1/health decides at once and for every worker; what does not exist here is named in the answer."""
    quiet = {**QUIET, "health": {"active": {"type": "none"}}}
    with HeldPort() as port, DataPlane(["--workers", workers]) as plane:
        options = {**quiet, "listen": port.address, "backends": [{"id": "a", "address": server.address}]}
        plane.put_snapshot({"s": options})
        status, answer = plane.request(
            "PUT",
            "/v1/health",
            {
                "verdicts": {
                    "s": {"a": {"state": "down", "cause": "on fire", "reachable": False}},
                    "x": {"b": {"state": "up"}},
                }
            },
        )
        assert (status, answer) == (200, {"unknown": ["x/b"]})
        assert plane.backend("s", "a")["health"]["state"] == "down"
        assert plane.backend("s", "a")["health"]["cause"] == "on fire"
        wait_for(lambda: refused(port.address), "each worker to refuse")
        assert plane.backend("s", "a")["health"]["reachable"] is False
        plane.request("PUT", "/v1/health", {"verdicts": {"s": {"a": {"state": "down", "reachable": True}}}})
        wait_for(lambda: not refused(port.address), "each worker to serve, in panic")
        assert plane.backend("s", "a")["health"]["state"] == "down"
        plane.request("PUT", "/v1/health", {"verdicts": {"s": {"a": {"state": "up"}}}})
        wait_for(lambda: not refused(port.address), "each worker to serve")
        status, answer = plane.request("PUT", "/v1/health", {"verdicts": {"s": {"a": {"state": "sick"}}}})
        assert status == 422
        assert answer["details"][0]["path"] == "verdicts.s.a.state"


def refused(address):
    """Tell whether any of some clients is closed without a byte (the kernel spreads them over the workers)."""
    answers = []
    for _ in range(8):
        with dial(address) as client:
            client.sendall(b"hello\n")
            try:
                answers.append(client.recv(100))
            except ConnectionResetError:
                answers.append(b"")
    return not any(answers)


def ask_live(plane):
    """Tell whether the process answers."""
    return plane.request("GET", "/livez")[0] == 200


def test_modes_of_files(plane, service):
    """The socket is 0600 in a folder 0700, and what is saved is nobody else's to read."""
    assert stat.S_IMODE(plane.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(plane.runtime_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(plane.state_dir.stat().st_mode) == 0o700
    saved = plane.state_dir / f"dataplane-{plane.name}.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user(plane):
    """A peer that is neither root nor the owner is refused, even if it could open the socket."""
    path = Path(plane.socket)
    for place in (plane.directory, path.parent):
        place.chmod(0o755)
    path.chmod(0o666)
    try:
        child = os.fork()
        if not child:
            os.setuid(65534)
            os._exit(0 if plane.request("GET", "/v1/info")[0] == 403 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        path.chmod(0o600)
        path.parent.chmod(0o700)
        plane.directory.chmod(0o700)


def test_metrics_of_many_backends():
    """A service of more than 200 is summed, and so are those after the first 1,000; no backend is lost in a sum."""

    def options(count):
        backends = [
            {"id": f"b{number}", "address": f"127.0.0.1:{number + 1}", "weight": 2} for number in range(count)
        ]
        active = {"type": "none"}
        return {
            "listen": f"unix:{plane.directory}/{count}",
            "health": {"active": active},
            "backends": backends,
        }

    sizes = {"large": 201, **{f"s{number}": 200 - number for number in range(6)}, "small": 3}
    with DataPlane() as plane:
        services = {name: options(count) for name, count in sizes.items()}
        body = {"version": 1, "generation": 1, "services": services}
        assert plane.request("PUT", "/v1/snapshot", body)[0] == 200
        metrics = plane.metrics()
        weights = {name: metrics.values("lb_backend_weight", service=name) for name in sizes}
        lengths = {"large": 1, "s0": 200, "s1": 199, "s2": 198, "s3": 197, "s4": 196, "s5": 1, "small": 3}
        assert {name: len(found) for name, found in weights.items()} == lengths
        assert {name: sum(found) for name, found in weights.items()} == {
            name: 2 * count for name, count in sizes.items()
        }
        assert sum(metrics.values("lb_backend_health", service="large", state="unknown")) == 201


def test_metrics(plane, server):
    """One scrape has every counter of the status, and parses."""
    with through(
        plane, server.address, **{**QUIET, "pool": {"mode": "preconnect", "min_idle": 1}}
    ) as service:
        service.wait(lambda now: now["backends"][0]["pooled"] == 1)
        ask(service.address)
        status = service.wait(lambda now: now["totals"]["closed"].get("client_closed") == 1)
        metrics = plane.metrics()
        totals, backend = status["totals"], status["backends"][0]
        own = {"service": service.name}
        assert metrics.value("lb_connections_total", **own) == totals["connections"] == 1
        assert metrics.value("lb_bytes_in_total", **own) == totals["bytes_in"] == 6
        assert metrics.value("lb_bytes_out_total", **own) == totals["bytes_out"] == 10
        assert metrics.value("lb_session_seconds_count", **own) == 1
        both = {**own, "backend": server.address}
        assert metrics.value("lb_backend_connections_total", **both) == backend["totals"]["connections"] == 1
        assert metrics.value("lb_pool_hits_total", **both) == backend["totals"]["pool"]["hits"] == 1
        assert metrics.value("lb_backend_usable", **both) == 1
        assert metrics.value("lb_backend_health", **both, state="unknown") == 1
        assert metrics.value("lb_listener_accepting", service=service.name) == 1
        assert metrics.value("lb_generation") == plane.get("/v1/info")["generation"]
