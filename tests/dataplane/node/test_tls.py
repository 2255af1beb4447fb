"""What a change does to TLS of services: all files are read before anything runs, and what stays configured stays in use."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.errors import Refused
from dataplane.net.reactor import Reactor
from dataplane.node.apply import Applier
from dataplane.node.node import Node
from dataplane.node.tls import UNUSABLE, tls_of, used
from dataplane.telemetry.events import Events
from tests.dataplane.node.bench import Unsaved
from tests.support.tls import CertificateAuthority

LISTENERS = SimpleNamespace(
    shut=lambda _: None,
    open=lambda _: None,
    new=SimpleNamespace(prepare=lambda *_: None, rehearse=lambda *_: None, abandon=lambda: None),
)


class Applying:
    """An applier without sockets, and what it tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.reactor = Reactor(asyncio.get_running_loop(), 1024)
        events = Events(lambda kind, **fields: self.told.append((kind, fields)), time.time)
        self.node = Node(self.reactor, events, Random(1))
        self.applier = Applier(self.node, Unsaved(), LISTENERS)  # type: ignore[arg-type]
        self._generation = 0

    async def apply(self, **services: Any) -> None:
        """Apply what these services say of TLS."""
        await self.applier.apply(self._body(services))
        self._generation += 1

    async def plan(self, **services: Any) -> Any:
        """Plan the same."""
        return await self.applier.plan(self._body(services))

    def _body(self, services: dict[str, Any]) -> dict[str, Any]:
        quiet: dict[str, Any] = {"health": {"active": {"type": "none"}}}
        said = {
            name: {"listen": f"127.0.0.1:{port}", "backends": ["127.0.0.1:1"], **quiet, **options}
            for port, (name, options) in enumerate(services.items(), 5000)
        }
        return {"version": 1, "generation": self._generation + 1, "services": said}

    def of(self, name: str) -> Any:
        """Return TLS of a service, with its clients and with its backends."""
        return tls_of(self.node.running[name].service)


@pytest.fixture
async def it():
    """An applier."""
    it = Applying()
    yield it
    it.reactor.epoll.close()


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """Return who signs."""
    return CertificateAuthority(tmp_path / "ca")


async def test_a_service_has_tls_as_long_as_it_says_so(it, authority):
    """With its clients, its backends, both or neither."""
    tls = {"certificates": [authority.issue("a.example").spec]}
    await it.apply(web={"tls": tls}, db={"backend_tls": {"ca": str(authority.ca)}}, plain={})
    assert it.of("web").server.context
    assert it.of("web").client is None
    assert it.of("db").server is None
    assert it.of("db").client.context
    assert it.of("plain") == (None, None)
    assert [one.service for one in used(it.node.running.values())] == ["web", "db"]
    await it.apply(web={}, db={})
    assert it.of("web") == it.of("db") == (None, None)
    assert used(it.node.running.values()) == []


async def test_what_is_configured_as_it_runs_stays(it, authority):
    """Its tickets, its sessions, and what was renewed; what is not is made anew."""
    tls = {"certificates": [authority.issue("a.example").spec]}
    await it.apply(web={"tls": tls, "backend_tls": {}})
    server, client = it.of("web")
    await it.apply(web={"tls": tls, "backend_tls": {}, "retries": 1})
    assert it.of("web") == (server, client)
    await it.apply(web={"tls": tls, "backend_tls": {"server_name": "x"}})
    assert it.of("web").server is server
    assert it.of("web").client is not client
    await it.apply(web={"tls": {**tls, "alpn": ["h2"]}, "backend_tls": {"server_name": "x"}})
    assert it.of("web").server is not server


async def test_files_that_cannot_be_used_refuse_the_change(it, authority):
    """Each with its place and its reason, for a plan as well; what runs is what ran."""
    pair = authority.issue("a.example")
    good, bad = {"certificates": [pair.spec]}, {"certificates": [pair.spec, {"cert": "/no", "key": "/no"}]}
    await it.apply(web={"tls": good})
    server = it.of("web").server
    it.told.clear()
    wrong = {"web": {"tls": bad}, "db": {"backend_tls": {"ca": "/none"}}}
    for ask in (it.plan, it.apply):
        with pytest.raises(Refused) as caught:
            await ask(**wrong)
        assert (caught.value.status, caught.value.code) == (422, UNUSABLE)
        assert [(one["path"], one["message"]) for one in caught.value.details] == [
            ("services.web.tls.certificates[1].cert", "/no cannot be read: no such file or directory"),
            ("services.db.backend_tls.ca", "/none cannot be read: no such file or directory"),
        ]
        for one in caught.value.details:
            assert f"{one['path']}: {one['message']}" in str(caught.value)
    assert it.of("web").server is server
    assert "db" not in it.node.running
    assert it.told == []


async def test_what_runs_is_not_read_again(it, authority):
    """A change of something else goes on while a renewal is half done."""
    pair = authority.issue("a.example")
    await it.apply(web={"tls": {"certificates": [pair.spec]}})
    pair.key.unlink()
    await it.apply(web={"tls": {"certificates": [pair.spec]}}, other={})
    assert it.of("web").server is not None


async def test_what_somebody_should_see_to_is_told_once_it_runs(it, authority):
    """A certificate that has ended, a key that everybody may read; a plan says nothing, nor does a change of something else."""
    pair = authority.expired("a.example")
    pair.key.chmod(0o644)
    web = {"tls": {"certificates": [pair.spec]}}
    await it.plan(web=web)
    assert it.told == []
    await it.apply(web=web)
    told = {"service": "web", "place": "tls.certificates[0]", "path": str(pair.cert)}
    assert [kind for kind, _ in it.told] == ["certificate_ended", "key_readable_by_all", "applied"]
    assert all(fields.items() >= told.items() for _, fields in it.told[:2])
    it.told.clear()
    await it.apply(web=web, other={})
    assert [kind for kind, _ in it.told] == ["applied"]


async def test_no_key_is_in_what_is_kept_or_answered(it, authority):
    """Neither in a snapshot nor in a refusal: its path alone."""
    pair = authority.issue("a.example")
    await it.apply(web={"tls": {"certificates": [pair.spec]}})
    secret = pair.key.read_text().splitlines()[1]
    assert secret not in str(it.applier.snapshot.body())
    assert secret not in repr(it.of("web"))
    pair.cert.write_text(pair.key.read_text())
    with pytest.raises(Refused) as caught:
        await it.apply(web={"tls": {"certificates": [pair.spec], "alpn": ["x"]}})
    assert secret not in f"{caught.value!r}{caught.value.details}"


async def test_a_plan_says_what_clients_are_shown(it, authority):
    """By the files as they are, and which names get another service; without TLS it says nothing of it."""
    first, second = authority.issue("a.example"), authority.issue("b.example")
    web = {"tls": {"certificates": [first.spec]}}
    await it.apply(web=web)
    impact = (await it.plan(web={"tls": {"certificates": [first.spec, second.spec]}}))["impact"]
    (one,) = impact["certificates"]
    assert (one["action"], one["place"], one["names"]) == ("add", "tls.certificates[1]", ["b.example"])
    assert "names" not in impact
    assert "certificates" not in (await it.plan(web=web))["impact"]
    shared = {"listen": "127.0.0.1:5000"}
    impact = (await it.plan(web=web, b={**shared, "match": {"sni": ["b.example"]}}))["impact"]
    assert impact["names"] == [{"name": "b.example", "from": "web", "to": "b"}]
