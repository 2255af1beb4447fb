"""The TCP side: who may call, what every answer forbids a browser, and the dashboard's files."""

from __future__ import annotations

import asyncio
import graphlib
import hmac
import os
import re
import socket
import stat
import subprocess
import sys
from importlib import resources

import pytest
from aiohttp.test_utils import make_mocked_request

from controlplane.daemon.http import HEADERS, Tcp, bound, listener
from controlplane.errors import BusyError, PlaceError
from schemas.http.reloaded import Renewed
from tests.controlplane.daemon.test_api import WORD, call, serving
from tests.controlplane.operations.test_controller import document

UI = resources.files("controlplane") / "ui"
MODULES = sorted(each.name for each in UI.iterdir() if each.name.endswith(".js"))
FILES = {"/": "index.html", "/app.css": "app.css"} | {f"/{name}": name for name in MODULES}
LOCAL = "127.0.0.1:7700"
HOLDER = """
import sys, pathlib
from controlplane.daemon.http import bound
with bound(pathlib.Path(sys.argv[1])):
    print("bound", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("path", "name"), FILES.items())
@pytest.mark.parametrize("token", [None, WORD])
async def test_files_are_served_without_the_token(tmp_path, path, name, token):
    """The page is where the token is entered, so it comes without; a browser may load nothing from elsewhere."""
    async with (
        serving(tmp_path, tcp=True, token=token) as (session, base, _, _),
        session.get(base + path) as response,
    ):
        assert response.status == 200
        assert await response.read() == (UI / name).read_bytes()
        assert response.headers["Content-Type"].startswith("text/")
        assert response.headers["Cache-Control"] == "no-store"
        assert {key: response.headers[key] for key in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/v1/status", "/v1/nothing", "/access.json"])
async def test_every_answer_has_the_headers(tmp_path, path):
    """Answers of the API and errors are guarded as the page is."""
    async with (
        serving(tmp_path, tcp=True) as (session, base, _, _),
        session.get(base + path) as response,
    ):
        assert {key: response.headers[key] for key in HEADERS} == HEADERS


async def test_event_stream_has_the_headers(tmp_path):
    """A stream is an answer, too."""
    async with (
        serving(tmp_path, tcp=True) as (session, base, _, _),
        session.get(f"{base}/v1/events") as response,
    ):
        assert {key: response.headers[key] for key in HEADERS} == HEADERS


def test_policy_allows_nothing_inline():
    """Scripts and styles come from the daemon, nothing else is loaded, and nobody may frame the page."""
    policy = dict(part.strip().partition(" ")[::2] for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy["script-src"], policy["style-src"], policy["connect-src"]} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"


def test_page_keeps_to_its_policy():
    """Nothing inline and nothing from elsewhere in the files, and no call that makes markup of text."""
    html, css, *modules = ((UI / name).read_text() for name in FILES.values())
    outside = r"(?:src|href)=[\"'](?!/app\.|#|data:image/svg)"
    assert not re.search(outside + r"|<style|\son\w+=|\sstyle=|<script>", html)
    assert not re.search(r"url\(|@import", css)
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    assert modules
    assert not any(re.search(sinks, module) for module in modules)


def test_page_modules_import_each_other_downwards_and_nothing_else():
    """Every import is a file that is served, and no module needs itself, however far round."""
    imports = {f"/{name}": set(re.findall(r'from "([^"]+)"', (UI / name).read_text())) for name in MODULES}
    assert set().union(*imports.values()) <= imports.keys() - {"/app.js"}
    order = tuple(graphlib.TopologicalSorter(imports).static_order())
    assert order[-1] == "/app.js"


@pytest.mark.parametrize(("token", "changes"), [(None, "never"), (WORD, "token")])
async def test_page_is_told_whether_it_may_change_anything(tmp_path, token, changes):
    """Without a token of the daemon's, the page need not ask for one."""
    async with serving(tmp_path, tcp=True, token=token) as (session, base, _, _):
        status, answer = await call(session, "GET", f"{base}/access.json")
        assert (status, answer["changes"], len(answer["page"])) == (200, changes, 16)


async def test_page_is_not_on_the_control_socket(tmp_path):
    """The Unix socket is for commands."""
    async with serving(tmp_path) as (session, base, _, _):
        assert (await call(session, "GET", f"{base}/"))[0] == 404


@pytest.mark.parametrize("path", ["/v1/apply", "/v1/plan", "/v1/rollback", "/v1/services/web/backends/a"])
async def test_get_changes_nothing(tmp_path, path):
    """A link or an image cannot change anything, whoever follows it."""
    async with serving(tmp_path, tcp=True, token=WORD) as (session, base, _, plane):
        status, _ = await call(session, "GET", f"{base}{path}?state=drain", Authorization=f"Bearer {WORD}")
        assert (status, plane.generation, plane.overrides) == (405, 1, {})


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "garbage"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_foreign_origin_is_refused(tmp_path, origin, method):
    """Another page may neither read nor change, even with the token."""
    async with serving(tmp_path, tcp=True, token=WORD) as (session, base, _, plane):
        path = "/v1/status" if method == "GET" else "/v1/apply"
        body = None if method == "GET" else document(2)
        known = {"Authorization": f"Bearer {WORD}", "Origin": origin}
        status, error = await call(session, method, base + path, body, **known)
        assert (status, error["code"], plane.generation) == (403, "foreign_origin", 1)


async def test_own_origin_is_served(tmp_path):
    """The page itself names an origin in its changes."""
    async with serving(tmp_path, tcp=True, token=WORD) as (session, base, _, plane):
        known = {"Authorization": f"Bearer {WORD}", "Origin": base}
        status, _ = await call(session, "POST", f"{base}/v1/apply", document(2), **known)
        assert (status, plane.generation) == (200, 2)


@pytest.mark.parametrize(
    ("address", "host", "served"),
    [
        (LOCAL, LOCAL, True),
        (LOCAL, "localhost:7700", True),
        (LOCAL, "127.0.0.1", True),
        (LOCAL, "127.0.0.1:8800", True),
        (LOCAL, "localhost:8800", True),
        (LOCAL, "LOCALHOST", True),
        (LOCAL, "page.example", True),
        (LOCAL, "evil.example:7700", False),
        (LOCAL, "127.0.0.1.evil.example:7700", False),
        ("[::1]:7700", "[::1]:7700", True),
        ("0.0.0.0:7700", "10.0.0.1:7700", True),
        ("localhost:7700", LOCAL, True),
        ("0.0.0.0:7700", None, True),
        ("0.0.0.0:7700", "evil.example:7700", False),
        ("[::]:7700", "[2001:db8::1]:7700", True),
    ],
)
def test_host_must_lead_here(address, host, served):
    """A name that somebody else's DNS turned to us is refused; a literal address is no name."""
    request = make_mocked_request("GET", "/v1/status", headers={} if host is None else {"Host": host})
    refusal = Tcp(address, None, ["page.example"]).refusal(request)
    assert (refusal is None) is served
    assert served or (refusal.code == "foreign_host" and "--http-host" in refusal.message)


def test_page_behind_a_proxy():
    """It calls by the name that it was loaded from, whatever the proxy writes into Host."""
    for host in (LOCAL, "page.example"):
        headers = {"Host": host, "Origin": "https://page.example"}
        request = make_mocked_request("GET", "/v1/status", headers=headers)
        assert Tcp(LOCAL, None, ["page.example"]).refusal(request) is None
        refusal = Tcp(LOCAL, None).refusal(request)
        assert refusal.code == ("foreign_origin" if host == LOCAL else "foreign_host")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer no", f"Bearer {WORD}x", f"Bearer {WORD[:-1]}"])
def test_wrong_token_is_refused(given):
    """Only the whole token opens the API."""
    request = make_mocked_request("GET", "/v1/status", headers={"Host": LOCAL, "Authorization": given})
    assert Tcp(LOCAL, Renewed((), lambda: WORD, wrong=())).refusal(request).status == 401


async def test_token_that_is_no_text_is_refused(tmp_path):
    """Bytes that are no UTF-8 are a wrong token like any other, not an error of ours."""
    async with serving(tmp_path, tcp=True, token=WORD) as (_, base, _, _):
        host = base.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        head = f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer "
        writer.write(head.encode() + b"\xff\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()
        await writer.wait_closed()


def test_token_is_compared_in_constant_time(monkeypatch):
    """How long a refusal takes tells nothing about the token."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or compare(*pair))
    request = make_mocked_request("GET", "/v1/status", headers={"Host": LOCAL, "Authorization": "Bearer no"})
    Tcp(LOCAL, Renewed((), lambda: WORD, wrong=())).refusal(request)
    assert compared == [(b"no", WORD.encode())]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "10.0.0.1:0", "name.example:0"])
def test_without_a_token_only_this_machine_may_look(address):
    """An address that others can reach is refused before it is bound."""
    with pytest.raises(PlaceError, match="loopback"):
        listener(address, token=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:"])
def test_address_that_is_none(address):
    """What cannot be bound is named."""
    with pytest.raises(PlaceError, match="--http"):
        listener(address, token=True)


def test_port_that_is_taken_is_named():
    """A second daemon on the same port says which."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(PlaceError) as caught:
            listener(address, token=False)
    assert str(caught.value) == f"--http {address}: cannot listen there: address already in use"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_any_port_is_told(host):
    """With port 0 the address is the one that was got."""
    sock, address = listener(f"{host}:0", token=False)
    with sock:
        assert address == f"{host}:{sock.getsockname()[1]}"
        with socket.create_connection((host.strip("[]"), int(address.rpartition(":")[2]))):
            pass


async def test_events_of_before_are_told_on_request(tmp_path):
    """Who opens the page sees what has happened, except for what only says that something did."""
    async with serving(tmp_path, tcp=True) as (session, base, node, _):
        node.events.publish({"type": "generation", "generation": 7})
        node.events.publish({"type": "dataplanes"}, remember=False)
        async with session.get(f"{base}/v1/events?remembered=true") as response:
            told = [await response.content.readline() for _ in range(3)]
            assert told[2] == b"event: generation\n"
            node.events.publish({"type": "marker"})
            told = [await response.content.readline() for _ in range(3)]
            assert told[2] == b"event: marker\n"


async def test_follower_that_goes_is_no_error(tmp_path, caplog):
    """A page that is closed leaves no trace in the log."""
    async with serving(tmp_path, tcp=True) as (session, base, node, _):
        async with session.get(f"{base}/v1/events") as response:
            await response.content.readline()
            response.close()
        for _ in range(100):  # the first ones may still be sent to somebody who has gone
            node.events.publish({"type": "x"})
            await asyncio.sleep(0)
    assert not caplog.records


def test_socket_is_private_whatever_the_umask(tmp_path):
    """The socket has mode 0600 in a directory of mode 0700, and the umask is as before."""
    path = tmp_path / "run" / "control.sock"
    before = os.umask(0)
    try:
        with bound(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_socket_is_gone_at_the_end(tmp_path):
    """Nobody finds a socket that nobody serves."""
    path = tmp_path / "control.sock"
    with bound(path):
        assert path.is_socket()
    assert not path.exists()


def test_live_socket_is_never_stolen(tmp_path):
    """A second daemon is refused with the first one's pid, and the first goes on being reached."""
    path = tmp_path / "control.sock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"bound\n"
        inode = path.stat().st_ino
        with pytest.raises(BusyError, match=f"pid {first.pid}"), bound(path):
            pass
        assert path.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        first.kill()
        first.wait()
        assert path.is_socket()
        with bound(path), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_place_that_cannot_be_had_is_named(tmp_path):
    """A path through a file is an error that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match=r"control\.sock: "), bound(tmp_path / "file" / "control.sock"):
        pass
