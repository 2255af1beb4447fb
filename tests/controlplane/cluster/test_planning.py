"""A plan over nodes: impact is added up, and who cannot be asked is named with what to do."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from controlplane.cluster.planning import plan_everywhere
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Entry, picture_of
from controlplane.dataplanes.requests import Caller

CHANGE = {"action": "add", "kind": "service", "service": "web"}


def plan(connections=3, share="5%", **more):
    """Return what a daemon answers."""
    drain = [{"service": "web", "id": "a", "connections": connections}]
    return {
        "changes": [CHANGE],
        "impact": {"drain": drain, "pool": [], "remap": {"web": share}, "listeners": []},
        "dataplanes": [{"name": "dp", "result": "ok", "error": None}],
        "unserved": [],
        **more,
    }


@pytest.fixture
def daemon():
    """Start daemons that answer each question with one status and value; what they were asked is in `asked`."""
    servers, asked = [], []

    def start(status, value):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                raw = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    start.asked = asked
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def planned(**addresses):
    """Plan over nodes at these addresses."""
    entries = [
        Entry(name, NodeRecord(name, "2027-01-15T08:00:00.000Z", address=address).encode(), "s", 1)
        for name, address in addresses.items()
    ]
    picture = picture_of("edge", entries, now=0.0, wall=1_800_000_000.0)
    return plan_everywhere(picture, {"version": 1}, Caller(), timeout_s=10.0)


def test_impact_is_added_up(daemon):
    """Connections are summed, of shares the largest counts, changes are named once."""
    report = planned(a=daemon(200, plan(3)), b=daemon(200, plan(4, "7%")))
    assert report["changes"] == [CHANGE]
    assert report["impact"]["drain"] == [{"service": "web", "id": "a", "connections": 7}]
    assert report["impact"]["remap"] == {"web": "7%"}
    assert [(each["node"], each["result"], each["changes"]) for each in report["nodes"]] == [
        ("a", "ok", 1),
        ("b", "ok", 1),
    ]
    assert daemon.asked == [("/v1/plan?", {"version": 1})] * 2 or {path for path, _ in daemon.asked} == {
        "/v1/plan"
    }


@pytest.mark.parametrize(
    ("status", "value", "result", "said"),
    [
        (403, {"code": "read_only", "message": "without a token nothing"}, "refused", "--token-file"),
        (401, {"code": "token", "message": "wrong"}, "refused", "--token-file"),
        (422, {"code": "invalid", "message": "no", "details": []}, "refused", "no"),
        (200, {"something": "else"}, "unreachable", "no daemon of ours"),
        (
            200,
            plan(dataplanes=[{"name": "dp", "result": "refused", "error": "in use"}]),
            "refused",
            "dp: in use",
        ),
    ],
)
def test_who_refuses_is_named(daemon, status, value, result, said):
    """With what to do; the others are added up."""
    report = planned(a=daemon(status, value), b=daemon(200, plan(4)))
    row = report["nodes"][0]
    assert (row["result"], said in row["error"]) == (result, True), row
    assert report["nodes"][1]["result"] == "ok"


def test_who_cannot_be_asked_is_named():
    """Nobody listens there, or nobody says where."""
    nodes = planned(a="http://127.0.0.1:1", b=None)["nodes"]
    assert [each["result"] for each in nodes] == ["unreachable", "no_address"]
    assert "cluster.address" in nodes[1]["error"]
