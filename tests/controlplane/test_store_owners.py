"""The store in a service's directory that root writes to as well: nothing is lost, or taken for missing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.errors import StoreError
from controlplane.operations.rules import rollback_entry
from controlplane.store import State, Store
from tests.controlplane.test_store import STATE, entry
from tests.support.users import SERVICE, acting_as_service, needs_two_users, owner

pytestmark = needs_two_users


@pytest.fixture
def directory() -> Iterator[Path]:
    """The state directory of a service; all may go through the folder above it."""
    with tempfile.TemporaryDirectory(prefix="lb-test-") as above:
        Path(above).chmod(0o755)
        made = Path(above) / "state"
        made.mkdir(mode=0o700)
        os.chown(made, SERVICE.pw_uid, SERVICE.pw_gid)
        yield made


def test_what_root_wrote_is_the_services(directory):
    """Root applies before the service ever ran; the service then reads it and goes on writing."""
    root = Store(directory)
    with root.writer():
        root.record(*entry(1))
        root.save(STATE)
    assert {owner(path) for path in directory.rglob("*")} == {SERVICE.pw_name}
    with acting_as_service():
        service = Store(directory)
        with service.writer():
            assert service.load() == STATE
            service.record(*entry(2))
            service.save(replace(STATE, generation=4))
            assert [each.generation for each in service.history().entries] == [1, 2]


def test_what_root_changes_stays_the_services(directory):
    """Root drains while the service is stopped: the override is there when it starts again."""
    with acting_as_service():
        Store(directory).save(replace(STATE, overrides=()))
    root = Store(directory)
    with root.writer():
        root.save(replace(root.load(), overrides=STATE.overrides))
    with acting_as_service():
        assert Store(directory).load().overrides == STATE.overrides


def test_a_link_of_the_services_is_not_followed(directory):
    """Whoever owns the directory cannot have root write elsewhere, or give it away."""
    precious = directory.parent / "precious"
    precious.write_text("root's")
    (directory / "control").mkdir()
    beside = directory / "control" / f".state.json.{os.getpid()}"
    beside.symlink_to(precious)
    Store(directory).save(STATE)
    (directory / "control" / "lock").symlink_to(precious)
    with pytest.raises(StoreError, match="symbolic links"), Store(directory).writer():
        pass
    assert (precious.read_text(), owner(precious)) == ("root's", "root")


def test_an_unreadable_state_is_no_empty_one(directory):
    """It is an error with what to do, and it is kept when something new is written down."""
    Store(directory).save(STATE)
    path = directory / "control" / "state.json"
    os.chown(path, 0, 0)
    with acting_as_service():
        store = Store(directory)
        with pytest.raises(StoreError, match=f"belongs to root.* sudo chown nobody {path}$"):
            store.load()
        store.save(State(generation=9))
        store.save(State(generation=10))
        assert Store(directory).load().generation == 10
    path.with_name("state.json.unusable").rename(path)
    assert Store(directory).load() == STATE


@pytest.mark.parametrize("folder", ["history", "documents"])
def test_a_folder_of_roots(directory, folder):
    """A folder that may not be entered is an error of the store's, which the daemon shows and survives."""
    Store(directory).record(*entry(1))
    os.chown(directory / "control" / folder, 0, 0)
    with acting_as_service():
        store = Store(directory)
        with pytest.raises(StoreError, match=f"sudo chown -R nobody {directory}/control/{folder}"):
            store.record(*entry(2))


def test_an_unreadable_history_is_no_empty_one(directory):
    """What cannot be read is named, and the previous content is not guessed from the rest."""
    store = Store(directory)
    for number in (1, 2, 3):
        store.record(*entry(number))
    path = directory / "control" / "history" / "000000000002.json"
    os.chown(path, 0, 0)
    with acting_as_service():
        known = Store(directory).history()
    assert [each.generation for each in known.entries] == [1, 3]
    (why,) = known.unread
    assert why.startswith(f"{path}: Permission denied: {path} belongs to root")
    assert known.report()["warnings"] == [f"a part of the history cannot be read: {why}"]
    with pytest.raises(StoreError, match="name a generation"):
        rollback_entry(known, entry(3)[0].document, None)
    assert rollback_entry(known, entry(3)[0].document, 1).generation == 1

    os.chown(path.parent, 0, 0)
    with acting_as_service():
        known = Store(directory).history()
    assert (known.entries, len(known.unread)) == ((), 1)


def test_documents_of_unread_generations_stay(directory, monkeypatch):
    """Forgetting old generations takes no document that an unread one may need."""
    monkeypatch.setattr("controlplane.store.KEPT_GENERATIONS", 2)
    store = Store(directory)
    for number in (1, 2, 3):
        store.record(*entry(number))
    os.chown(directory / "control" / "history" / "000000000003.json", 0, 0)
    with acting_as_service():
        Store(directory).record(*entry(4))
        assert Store(directory).document(entry(3)[0].document) == entry(3)[1]
