"""The store: nothing half-written is ever read, there is one writer, and a full disk costs only the newest."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.core.merge import Override
from controlplane.errors import BusyError, StoreError, UnknownError
from controlplane.store import KEPT_DISCOVERED, KEPT_GENERATIONS, Entry, History, State, Store, digest_of
from tests.support.users import SERVICE, acting_as_service, needs_two_users, owner

STATE = State(
    generation=3,
    hash="h",
    document={"version": 1},
    services={"web": {"backends": []}},
    discovered=("web",),
    overrides=(Override("web", "a", "state", "drain", "op", "2026-01-01T00:00:00.000Z"),),
    retracted=(("web", "b", "weight"),),
    file_digest="f",
    share=3,
    scoped={"web": {"connections": 100}},
)


def entry(generation, document=None, origin="apply"):
    """Make an entry of the history, and its lb.yaml."""
    text = document or {"version": 1, "n": generation}
    made = Entry(generation, f"h{generation}", "2026-01-01T00:00:00.000Z", "op", origin, digest_of(text), [])
    return made, text


def test_state_comes_back_as_it_was_saved(tmp_path):
    """Overrides, retractions and discovery included."""
    Store(tmp_path).save(STATE)
    assert Store(tmp_path).load() == STATE


def test_nothing_saved_is_a_fresh_state(tmp_path):
    """A first start is no error, and makes no directory."""
    assert Store(tmp_path / "new").load() == State()
    assert Store(tmp_path / "new").history() == History()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: raw.replace(b'"generation":3', b'"generation":9'),
        lambda raw: b"[]",
        lambda raw: b'{"data": 1, "sha256": ""}',
    ],
)
def test_damaged_state_is_refused(tmp_path, damage):
    """A file that does not match its digest is an error, never a state."""
    store = Store(tmp_path)
    store.save(STATE)
    path = tmp_path / "control" / "state.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match="damaged"):
        store.load()


def test_files_are_private(tmp_path):
    """Nobody else may read what runs where."""
    store = Store(tmp_path)
    with store.writer():
        store.save(STATE)
        store.record(*entry(1))
    for path in (tmp_path / "control").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_history_is_in_order_and_keeps_its_documents(tmp_path):
    """Each generation is found with the lb.yaml that it was."""
    store = Store(tmp_path)
    for generation in (1, 2, 10):
        store.record(*entry(generation))
    assert [each.generation for each in store.history().entries] == [1, 2, 10]
    assert store.document(store.history().entries[2].document) == {"version": 1, "n": 10}
    with pytest.raises(UnknownError):
        store.document("0" * 64)


def test_history_is_bounded_and_discovery_has_a_share_of_its_own(tmp_path):
    """The oldest go, with their documents; a restless registry pushes out nobody's words."""
    store = Store(tmp_path)
    same = {"version": 1, "n": 0}
    for generation in range(1, KEPT_GENERATIONS + 4):
        store.record(*entry(generation))
    for generation in range(1000, 1000 + KEPT_DISCOVERED + 5):
        store.record(*entry(generation, same, "discovery" if generation % 2 else "cluster"))
    kept = store.history().entries
    assert [each.generation for each in kept if each.origin == "apply"] == list(
        range(4, KEPT_GENERATIONS + 4)
    )
    assert sum(each.origin in {"discovery", "cluster"} for each in kept) == KEPT_DISCOVERED
    documents = {path.stem for path in (tmp_path / "control" / "documents").iterdir()}
    assert documents == {each.document for each in kept}


def test_generation_is_recorded_once(tmp_path):
    """An apply that is repeated does not rewrite who made the generation."""
    store = Store(tmp_path)
    first, text = entry(1)
    store.record(first, text)
    store.record(replace(first, by="somebody else"), text)
    assert store.history().entries == (first,)


def test_damaged_entry_is_left_out(tmp_path):
    """One bad file does not hide the others, and is named."""
    store = Store(tmp_path)
    for generation in (1, 2):
        store.record(*entry(generation))
    (tmp_path / "control" / "history" / "000000000001.json").write_text("{")
    known = store.history()
    assert [each.generation for each in known.entries] == [2]
    assert "000000000001.json: damaged" in known.unread[0]


def test_recovery_takes_the_newest_document(tmp_path):
    """Without a state the last lb.yaml is still known."""
    store = Store(tmp_path)
    for generation in (1, 2):
        store.record(*entry(generation))
    recovered = store.recover()
    assert (recovered.generation, recovered.document) == (2, {"version": 1, "n": 2})


HOLDER = """
import sys, pathlib
from controlplane.store import Store
with Store(pathlib.Path(sys.argv[1])).writer():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process that is the writer."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_there_is_one_writer_and_its_pid_is_named(tmp_path, holder):
    """A second writer is told who the first is."""
    with pytest.raises(BusyError) as caught, Store(tmp_path).writer():
        pass
    assert caught.value.pid == holder.pid
    assert str(holder.pid) in str(caught.value)


def test_killed_writer_leaves_no_lock(tmp_path, holder):
    """The kernel frees the lock of a process that was killed."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Store(tmp_path).writer():
        assert (tmp_path / "control" / "lock").read_text() == f"{os.getpid()}\n"


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let every write beyond 100 bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_full_disk_leaves_the_old_file(tmp_path, request):
    """A write that fails is an error that says so; what was there stays, and nothing lies beside it."""
    store = Store(tmp_path)
    store.save(STATE)
    store.record(*entry(1))
    request.getfixturevalue("full_disk")
    with pytest.raises(StoreError, match=r"state\.json: .*what was there before stays"):
        store.save(replace(STATE, generation=4))
    with pytest.raises(StoreError):
        store.record(*entry(2))
    assert store.load() == STATE
    assert [each.generation for each in store.history().entries] == [1]
    assert not list((tmp_path / "control").rglob(".*"))


# --- a service's directory, which root writes to as well: nothing is lost, or taken for missing ---


@pytest.fixture
def services_own() -> Iterator[Path]:
    """The state directory of a service; all may go through the folder above it."""
    with tempfile.TemporaryDirectory(prefix="lb-test-") as above:
        Path(above).chmod(0o755)
        made = Path(above) / "state"
        made.mkdir(mode=0o700)
        os.chown(made, SERVICE.pw_uid, SERVICE.pw_gid)
        yield made


@needs_two_users
def test_what_root_wrote_is_the_services(services_own):
    """Root applies before the service ever ran; the service then reads it and goes on writing."""
    root = Store(services_own)
    with root.writer():
        root.record(*entry(1))
        root.save(STATE)
    assert {owner(path) for path in services_own.rglob("*")} == {SERVICE.pw_name}
    with acting_as_service():
        service = Store(services_own)
        with service.writer():
            assert service.load() == STATE
            service.record(*entry(2))
            service.save(replace(STATE, generation=4))
            assert [each.generation for each in service.history().entries] == [1, 2]


@needs_two_users
def test_what_root_changes_stays_the_services(services_own):
    """Root drains while the service is stopped: the override is there when it starts again."""
    with acting_as_service():
        Store(services_own).save(replace(STATE, overrides=()))
    root = Store(services_own)
    with root.writer():
        root.save(replace(root.load(), overrides=STATE.overrides))
    with acting_as_service():
        assert Store(services_own).load().overrides == STATE.overrides


@needs_two_users
def test_a_link_of_the_services_is_not_followed(services_own):
    """Whoever owns the directory cannot have root write elsewhere, or give it away."""
    precious = services_own.parent / "precious"
    precious.write_text("root's")
    (services_own / "control").mkdir()
    beside = services_own / "control" / f".state.json.{os.getpid()}"
    beside.symlink_to(precious)
    Store(services_own).save(STATE)
    (services_own / "control" / "lock").symlink_to(precious)
    with pytest.raises(StoreError, match="symbolic links"), Store(services_own).writer():
        pass
    assert (precious.read_text(), owner(precious)) == ("root's", "root")


@needs_two_users
def test_an_unreadable_state_is_no_empty_one(services_own):
    """It is an error with what to do, and it is kept when something new is written down."""
    Store(services_own).save(STATE)
    path = services_own / "control" / "state.json"
    os.chown(path, 0, 0)
    with acting_as_service():
        store = Store(services_own)
        with pytest.raises(StoreError, match=f"belongs to root.* sudo chown nobody {path}$"):
            store.load()
        store.save(State(generation=9))
        store.save(State(generation=10))
        assert Store(services_own).load().generation == 10
    path.with_name("state.json.unusable").rename(path)
    assert Store(services_own).load() == STATE


@needs_two_users
@pytest.mark.parametrize("folder", ["history", "documents"])
def test_a_folder_of_roots(services_own, folder):
    """A folder that may not be entered is an error of the store's, which the daemon shows and survives."""
    Store(services_own).record(*entry(1))
    os.chown(services_own / "control" / folder, 0, 0)
    with acting_as_service():
        store = Store(services_own)
        with pytest.raises(StoreError, match=f"sudo chown -R nobody {services_own}/control/{folder}"):
            store.record(*entry(2))


@needs_two_users
def test_an_unreadable_history_is_no_empty_one(services_own):
    """What cannot be read is named."""
    store = Store(services_own)
    for number in (1, 2, 3):
        store.record(*entry(number))
    path = services_own / "control" / "history" / "000000000002.json"
    os.chown(path, 0, 0)
    with acting_as_service():
        known = Store(services_own).history()
    assert [each.generation for each in known.entries] == [1, 3]
    (why,) = known.unread
    assert why.startswith(f"{path}: Permission denied: {path} belongs to root")
    assert known.report()["warnings"] == [f"a part of the history cannot be read: {why}"]
    os.chown(path.parent, 0, 0)
    with acting_as_service():
        known = Store(services_own).history()
    assert (known.entries, len(known.unread)) == ((), 1)


@needs_two_users
def test_documents_of_unread_generations_stay(services_own, monkeypatch):
    """Forgetting old generations takes no document that an unread one may need."""
    monkeypatch.setattr("controlplane.store.KEPT_GENERATIONS", 2)
    store = Store(services_own)
    for number in (1, 2, 3):
        store.record(*entry(number))
    os.chown(services_own / "control" / "history" / "000000000003.json", 0, 0)
    with acting_as_service():
        Store(services_own).record(*entry(4))
        assert Store(services_own).document(entry(3)[0].document) == entry(3)[1]


def test_what_the_agent_said_is_kept(tmp_path):
    """Beside the state, in a directory that is made for it; what is damaged is said."""
    store = Store(tmp_path / "new")
    assert store.identity() == {}
    store.keep_identity({"NODE_NAME": "lb-1"})
    assert store.identity() == {"NODE_NAME": "lb-1"}
    path = tmp_path / "new/control/identity.json"
    path.write_text(path.read_text().replace("lb-1", "lb-2"))
    with pytest.raises(StoreError, match=r"identity\.json: damaged"):
        store.identity()


def test_what_is_remembered_of_a_canary(tmp_path):
    """Kept, replaced, forgotten; what is damaged is an error, and not nothing."""
    store = Store(tmp_path)
    assert store.canary() is None
    store.keep_canary(None)
    store.keep_canary({"id": "c1"})
    store.keep_canary({"id": "c2"})
    assert Store(tmp_path).canary() == {"id": "c2"}
    path = tmp_path / "control" / "canary.json"
    path.write_bytes(path.read_bytes().replace(b"c2", b"c3"))
    with pytest.raises(StoreError, match="damaged"):
        store.canary()
    store.keep_canary(None)
    assert store.canary() is None
