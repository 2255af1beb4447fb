"""One change at a time, in all who run it or in none: with listeners and replicas that only note what they are told."""

from __future__ import annotations

import asyncio
import time
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.errors import Refused
from dataplane.net.reactor import Reactor
from dataplane.node.apply import Applier
from dataplane.node.change import MADE, Words
from dataplane.node.node import Node
from dataplane.telemetry.events import Events
from schemas.api import BackendPatch, Verdict
from schemas.errors import InvalidDocument
from schemas.snapshot import parse_snapshot
from tests.dataplane.node.bench import Unsaved


class Noted:
    """Listeners and replicas in one: what they are told, in order, and what they refuse."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.noted: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.held: dict[tuple[str, str], tuple[int, int]] = {}

    def note(self, what: str) -> None:
        """Note it; raise what the test wants to be raised."""
        self.noted.append(what)
        if what in self.fails:
            raise self.fails[what]

    def shut(self, addresses: Any) -> None:
        """Note it."""
        self.note("shut")

    def open(self, addresses: Any) -> None:
        """Note it."""
        self.note("open")

    @property
    def new(self) -> Any:
        """The sockets that are opened."""
        return SimpleNamespace(
            prepare=lambda *_: self.note("open sockets"),
            rehearse=lambda *_: self.note("rehearse"),
            abandon=lambda: self.note("close sockets"),
        )

    async def prepare(self, *_: Any) -> None:
        """Note it."""
        self.note("prepare")

    def abort(self) -> None:
        """Note it."""
        self.note("abort")

    async def commit(self) -> None:
        """Note it."""
        self.note("commit")

    async def dry_run(self) -> Any:
        """Tell what they hold."""
        self.note("dry_run")
        return lambda service, backend: self.held.get((service, backend.id), (0, 0))

    async def prepare_words(self, words: Words) -> None:
        """Note it."""
        name = words.running.service.name
        said = (f"{name}/{spec.id} {spec.state.value} {spec.weight}" for spec in words.specs)
        self.note(f"prepare {', '.join(said)}")

    async def commit_words(self) -> None:
        """Note it."""
        self.note("commit words")


class Applying:
    """An applier, and what it tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.others = Noted()
        self.reactor = Reactor(asyncio.get_running_loop(), 1024)
        events = Events(lambda kind, **fields: self.told.append((kind, fields)), time.time)
        self.node = Node(self.reactor, events, Random(1))
        self.applier = Applier(self.node, Unsaved(), self.others, self.others)

    def kinds(self) -> list[str]:
        """Return what was told."""
        return [kind for kind, _ in self.told]


@pytest.fixture
async def it():
    """An applier."""
    it = Applying()
    yield it
    it.reactor.epoll.close()


def body(generation: int, *ids: str, **options: Any) -> dict[str, Any]:
    """Return a snapshot of one service, with backends of these ids."""
    backends = [{"id": id_, "address": f"127.0.0.1:{number}"} for number, id_ in enumerate(ids, 1)]
    quiet: dict[str, Any] = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
    service = {"listen": "127.0.0.1:9", "backends": backends, **quiet, **options}
    return {"version": 1, "generation": generation, "services": {"s": service}}


async def test_all_that_can_fail_comes_before_the_swap(it):
    """Sockets are opened, then replicas prepare, then it is swapped here, then replicas run it."""
    answer = await it.applier.apply(body(1, "a"))
    assert it.others.noted == ["open sockets", "prepare", "shut", "open", "commit"]
    assert answer["hash"] == it.applier.snapshot.hash
    assert set(it.node.running["s"].service.backends) == {"a"}
    assert it.kinds() == ["applied"]


@pytest.mark.parametrize(
    ("where", "then"),
    [
        ("open sockets", ["open sockets"]),
        ("prepare", ["open sockets", "prepare", "abort", "close sockets"]),
    ],
    ids=["an address", "a replica"],
)
@pytest.mark.parametrize(
    "error", [Refused(503, "x", "no"), asyncio.CancelledError()], ids=["no", "cancelled"]
)
async def test_one_refusal_and_nothing_has_happened(it, where, then, error):
    """What was prepared elsewhere is forgotten, what was opened is closed, and the old one runs."""
    await it.applier.apply(body(1, "a"))
    it.others.noted.clear()
    it.others.fails[where] = error
    with pytest.raises(type(error)):
        await it.applier.apply(body(2, "b"))
    assert it.others.noted == then
    assert it.applier.snapshot.generation == 1
    assert set(it.node.running["s"].service.backends) == {"a"}
    it.others.fails.clear()
    await it.applier.apply(body(2, "b"))
    assert set(it.node.running["s"].service.backends) == {"b"}


async def test_what_is_refused_unseen(it):
    """An older generation, another content under the same one, another hash than expected, and nonsense."""
    await it.applier.apply(body(5, "a"))
    it.others.noted.clear()
    for refused, code, match in [
        (body(4, "a"), "older_generation", None),
        (body(5, "b"), "generation_conflict", None),
        (body(6, "b"), "hash_mismatch", "other"),
    ]:
        for ask in (it.applier.apply, it.applier.plan):
            with pytest.raises(Refused) as caught:
                await ask(refused, if_match=match)
            assert caught.value.code == code
    with pytest.raises(InvalidDocument):
        await it.applier.apply({"version": 1})
    assert not it.others.noted


async def test_the_same_again_changes_nothing(it):
    """It is answered as the first time, but for the changes."""
    first = await it.applier.apply(body(1, "a"))
    it.others.noted.clear()
    assert await it.applier.apply(body(1, "a"), if_match=f'"{first["hash"]}"') == {**first, "changes": []}
    assert not it.others.noted


async def test_who_is_no_longer_in_charge_changes_nothing(it):
    """A process that ends, or was taken over, says so."""
    it.applier.refusal = Refused(503, "stopping", "the process is ending")
    for asked in (
        it.applier.apply(body(1, "a")),
        it.applier.plan(body(1, "a")),
        it.applier.patch("s", "a", BackendPatch(weight=2)),
    ):
        with pytest.raises(Refused, match="ending"):
            await asked


async def test_a_plan_changes_nothing(it):
    """It tries the addresses, and says what connections of all replicas the change would drain."""
    await it.applier.apply(body(1, "a", "b"))
    it.others.noted.clear()
    it.others.held = {("s", "a"): (3, 2)}
    planned = await it.applier.plan(body(2))
    assert it.others.noted == ["rehearse", "dry_run"]
    assert planned["impact"]["drain"] == [{"service": "s", "id": "a", "connections": 3}]
    assert planned["impact"]["pool"] == [{"service": "s", "id": "a", "connections": 2}]
    assert it.applier.snapshot.generation == 1


async def test_one_change_at_a_time(it):
    """The second waits, and sees what the first has made."""
    await it.applier.lock.acquire()
    both = [asyncio.create_task(it.applier.apply(body(number, "a"))) for number in (1, 2)]
    await asyncio.sleep(0)
    assert it.applier.snapshot.generation == 0
    it.applier.lock.release()
    await asyncio.wait(both)
    assert [task.result()["generation"] for task in both] == [1, 2]
    assert it.others.noted.count("commit") == 2


async def test_an_override_is_made_in_all_and_told_once(it):
    """The same again tells nothing; what the snapshot says ends it."""
    await it.applier.apply(body(1, "a"))
    answer = await it.applier.patch("s", "a", BackendPatch(state="drain", weight=7))
    assert answer == {"service": "s", "id": "a", "state": "drain", "weight": 7}
    assert it.others.noted[-2:] == ["prepare s/a drain 7", "commit words"]
    await it.applier.patch("s", "a", BackendPatch(weight=7))
    await it.applier.patch("s", "a", BackendPatch(weight=1))
    told = [(kind, fields) for kind, fields in it.told if kind.startswith("override")]
    assert [kind for kind, _ in told] == ["override", "override_ended"]
    assert told[0][1] == {"service": "s", "backend": "a", "state": "drain", "weight": 7}
    assert told[1][1] == {"service": "s", "backend": "a", "weight": 1}


@pytest.mark.parametrize(("service", "backend"), [("t", "a"), ("s", "x")])
async def test_there_is_nobody_to_override(it, service, backend):
    """An unknown service or backend is refused."""
    await it.applier.apply(body(1, "a"))
    with pytest.raises(Refused) as caught:
        await it.applier.patch(service, backend, BackendPatch(weight=2))
    assert caught.value.status == 404


async def test_others_prepare_while_backends_are_made(it, monkeypatch):
    """It takes both as long; whoever refuses is heard when all is made, and none of it runs."""
    make = it.node.make_backend

    def noted(*args):
        it.others.note("make")
        return make(*args)

    monkeypatch.setattr(it.node, "make_backend", noted)
    ids = [f"b{number}" for number in range(2 * MADE)]
    it.others.fails["prepare"] = Refused(503, "worker_refused", "no")
    with pytest.raises(Refused, match="no"):
        await it.applier.apply(body(1, *ids, listen="127.0.0.1:999"))
    before, _, after = " ".join(it.others.noted).partition(" prepare ")
    assert before.count("make") >= MADE
    assert after == " ".join(["make"] * (2 * MADE - before.count("make")) + ["abort", "close sockets"])
    assert not it.node.running


async def test_many_overrides_are_one_change_and_one_event(it):
    """All others prepare it before anything changes; what is not named stays, and the same again tells nothing."""
    await it.applier.apply(body(1, "a", "b", "c"))
    it.others.noted.clear()
    it.told.clear()
    patches = {"c": BackendPatch(weight=7), "a": BackendPatch(state="drain")}
    answer = await it.applier.patch_all("s", {"backends": patches})
    assert answer == {
        "service": "s",
        "backends": [
            {"id": "c", "state": "enabled", "weight": 7},
            {"id": "a", "state": "drain", "weight": 1},
        ],
    }
    assert it.others.noted == ["prepare s/c enabled 7, s/a drain 1", "commit words"]
    await it.applier.patch_all("s", {"backends": patches})
    await it.applier.patch_all("s", {"backends": {"c": {"weight": 1}, "b": {"weight": 2}}})
    told = [fields for kind, fields in it.told if kind == "overrides"]
    assert told == [
        {"service": "s", "begun": 2, "ended": 0},
        {"service": "s", "begun": 1, "ended": 1},
    ]
    assert it.applier.snapshot.generation == 1
    assert set(it.node.overrides) == {("s", "a"), ("s", "b")}
    weights = {backend.id: backend.spec.weight for backend in it.node.running["s"].service.backends.values()}
    assert weights == {"a": 1, "b": 2, "c": 1}


async def test_one_that_is_not_there_and_none_is_overridden(it):
    """The details have the place of each."""
    await it.applier.apply(body(1, "a"))
    it.others.noted.clear()
    patches = {name: BackendPatch(weight=2) for name in ("a", "x", "y.z")}
    with pytest.raises(Refused, match="service s has no backend x") as caught:
        await it.applier.patch_all("s", {"backends": patches})
    assert [one["path"] for one in caught.value.details] == ["backends.x", 'backends["y.z"]']
    assert not it.others.noted
    assert not it.node.overrides
    assert it.node.running["s"].service.backends["a"].spec.weight == 1


async def test_a_refused_override_changes_nothing(it):
    """Those who have prepared it forget it."""
    await it.applier.apply(body(1, "a"))
    it.others.fails["prepare s/a enabled 2"] = Refused(503, "worker_refused", "no")
    with pytest.raises(Refused, match="no"):
        await it.applier.patch("s", "a", BackendPatch(weight=2))
    assert it.others.noted[-1] == "abort"
    assert not it.node.overrides
    assert it.node.running["s"].service.backends["a"].spec.weight == 1


@pytest.mark.parametrize(("address", "kept"), [("127.0.0.1:1", True), ("127.0.0.1:2", True)])
async def test_an_override_survives_a_snapshot_that_says_the_same(it, address, kept):
    """It is of a field, and ends when a snapshot changes that field, whatever else it changes."""
    await it.applier.apply(body(1, "a"))
    await it.applier.patch("s", "a", BackendPatch(weight=7))
    following = body(2, "a")
    following["services"]["s"]["backends"][0]["address"] = address
    await it.applier.apply(following)
    assert it.node.running["s"].service.backends["a"].spec.weight == 7
    assert ("override_ended" in it.kinds()) is not kept
    following = body(3, "a")
    following["services"]["s"]["backends"][0]["weight"] = 3
    await it.applier.apply(following)
    assert it.node.running["s"].service.backends["a"].spec.weight == 3
    assert not it.node.overrides
    assert it.kinds().count("override_ended") == 1


async def test_what_comes_from_disk_needs_no_generation(it):
    """What runs at the start is swapped as every change, and refused as one."""
    snapshot = parse_snapshot(body(7, "a"))
    it.others.fails["open sockets"] = Refused(503, "bind_failed", "no")
    with pytest.raises(Refused):
        await it.applier.restore(snapshot)
    it.others.fails.clear()
    await it.applier.restore(snapshot)
    assert it.applier.snapshot.generation == 7


async def test_verdicts_of_others_are_passed_on(it):
    """Each is told, even if it changes nothing: another process may know otherwise."""
    await it.applier.apply(body(1, "a"))
    it.told.clear()
    told = []
    it.node.on_judged = lambda *who, **what: told.append((who[0], who[1].id, what))
    up = Verdict(state="up")
    for _ in range(2):
        assert it.applier.decide_all({"s": {"a": up}, "t": {"a": up}}) == ["t/a"]
    assert told == [("s", "a", {"changed": True, "passed": True})] * 2
    assert it.kinds() == ["backend_up"]
