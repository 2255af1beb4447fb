"""What outlives the process: the last accepted state, the operators' overrides, every applied generation.

    <state dir>/control/lock                 held by the one writer; contains its pid
                        state.json           what should run now
                        history/<n>.json     generation n: when, by whom, what changed
                        documents/<d>.json   the lb.yaml of those generations, by digest

Every file is written beside its place, synced and renamed, so that a crash or a full disk leaves the old one.
Every file carries the digest of its content; one that does not match is never used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from controlplane.core.merge import Override, Place
from controlplane.errors import BusyError, StoreError, UnknownError

__all__ = ["Entry", "State", "Store", "digest_of"]

KEPT_GENERATIONS: Final = 200
"""A year of weekly changes four times over; documents are at most 1 MiB each."""
KEPT_DISCOVERED: Final = 50
"""Generations that discovery made have a share of their own: a restless registry pushes out nobody's words."""
KEPT_CHANGES: Final = 200
"""Changes named in one entry; a first apply of 10,000 backends has as many."""
_LOCK_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class State:
    """What should run, and how that came about."""

    generation: int = 0
    """0: nothing was ever accepted."""
    hash: str = ""
    document: dict[str, Any] | None = None
    """The accepted lb.yaml as JSON."""
    services: dict[str, Any] = field(default_factory=dict)
    """What it resolved to when it was accepted, the JSON form of a snapshot's services."""
    discovered: tuple[str, ...] = ()
    """The services whose backends come from discovery."""
    overrides: tuple[Override, ...] = ()
    retracted: tuple[Place, ...] = ()
    """Where an override was taken back, the newest last: a data plane may not have heard of it yet."""
    file_digest: str | None = None
    """SHA-256 of the watched file's last accepted content; None if there never was one."""
    file_document: str | None = None
    """Digest of the lb.yaml that this content was, whatever its layout; None if it is not known."""
    applied_by: str | None = None
    """Who applied something else after the watched file; None while the file's word holds."""
    applied_since: str | None = None
    discovery: dict[str, Any] = field(default_factory=dict)
    """The last good answers of discovery, as the source saved them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One applied generation."""

    generation: int
    hash: str
    when: str
    """RFC 3339, UTC."""
    by: str
    origin: str
    """`apply`, `file`, `rollback` or `discovery`."""
    document: str
    """Digest of its lb.yaml."""
    changes: list[dict[str, Any]]
    """At most `KEPT_CHANGES`."""
    more: int = 0
    """How many changes are not named."""


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _fields(record: State | Entry) -> dict[str, Any]:
    """Return its fields as they are: `asdict` would copy every value of 10,000 backends."""
    return {each.name: getattr(record, each.name) for each in fields(record)}


class Store:
    """The files below one directory. Blocking: a few milliseconds for each write, for it is synced."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "control"
        self.directory = self._root

    @contextlib.contextmanager
    def writer(self, *, timeout_s: float = 0.0) -> Iterator[None]:
        """Be the one writer inside the `with` block.

        Raises:
            BusyError: Another process still is after `timeout_s` seconds.
            StoreError: The directory cannot be made or written.
        """
        path = self._root / "lock"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        try:
            _lock(handle, str(self._root), timeout_s)
            yield
        finally:
            os.close(handle)

    def load(self) -> State:
        """Read the last accepted state; a fresh one if there is none.

        Raises:
            StoreError: It is there, and cannot be read or does not match its digest.
        """
        data = _read(self._root / "state.json")
        if data is None:
            return State()
        try:
            data["overrides"] = tuple(Override(**each) for each in data["overrides"])
            data["retracted"] = tuple((service, key, name) for service, key, name in data["retracted"])
            data["discovered"] = tuple(data["discovered"])
            return State(**data)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self._root / 'state.json'}: written by another version ({error})") from error

    def recover(self) -> State:
        """Return what can be known without `state.json`: the newest lb.yaml of the history, not yet resolved."""
        for entry in reversed(self.history()):
            with contextlib.suppress(StoreError, UnknownError):
                return State(generation=entry.generation, document=self.document(entry.document))
        return State()

    def save(self, state: State) -> None:
        """Replace the accepted state.

        Raises:
            StoreError: It cannot be written; the old one is still there.
        """
        _write(self._root / "state.json", {**_fields(state), "overrides": [*map(asdict, state.overrides)]})
        try:
            _sync_directory(self._root)
        except OSError as error:
            raise StoreError(f"{self._root}: {error.strerror}") from error

    def record(self, entry: Entry, document: dict[str, Any]) -> None:
        """Add a generation to the history, unless it is there, and forget what is too old.

        Raises:
            StoreError: It cannot be written; nothing was forgotten.
        """
        kind = ".discovery" if entry.origin == "discovery" else ""
        path = self._root / "history" / f"{entry.generation:012}{kind}.json"
        with contextlib.suppress(StoreError):  # a damaged entry is replaced
            known = _read(path)
            if known is not None and known["hash"] == entry.hash:
                return
        text = self._root / "documents" / f"{entry.document}.json"
        if not text.exists():
            _write(text, document)
        _write(path, _fields(entry))
        self._forget()

    def history(self) -> tuple[Entry, ...]:
        """Read every generation that is still known, the oldest first; damaged ones are left out."""
        entries: list[Entry] = []
        for path in self._generations():
            with contextlib.suppress(StoreError, TypeError):
                if (data := _read(path)) is not None:
                    entries.append(Entry(**data))
        return tuple(entries)

    def document(self, digest: str) -> dict[str, Any]:
        """Read the lb.yaml of a generation, as JSON.

        Raises:
            UnknownError: It is not there.
            StoreError: It is damaged.
        """
        data = _read(self._root / "documents" / f"{digest}.json")
        if data is None:
            raise UnknownError(f"the history has no document {digest[:12]}")
        return data

    def _generations(self) -> list[Path]:
        try:
            return sorted((self._root / "history").glob("*.json"))
        except OSError:
            return []

    def _forget(self) -> None:
        paths = self._generations()
        found = [path for path in paths if path.name.endswith(".discovery.json")]
        said = [path for path in paths if path not in found]
        old = said[:-KEPT_GENERATIONS] + found[:-KEPT_DISCOVERED]
        if not old:
            return
        for path in old:
            path.unlink(missing_ok=True)
        used = {entry.document for entry in self.history()}
        for path in (self._root / "documents").glob("*.json"):
            if path.stem not in used:
                path.unlink(missing_ok=True)


def _lock(handle: int, what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
                raise BusyError(what, int(holder) if holder.isdecimal() else None) from error
            time.sleep(_LOCK_POLL_S)  # flock has no deadline of its own, and SIGALRM belongs to the program
        else:
            with contextlib.suppress(OSError):  # the pid is a courtesy: a full disk must not forbid the lock
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            return


def _read(path: Path) -> dict[str, Any] | None:
    try:
        envelope = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged: {error}") from error
    data = envelope.get("data") if isinstance(envelope, dict) else None
    if not isinstance(data, dict) or digest_of(data) != envelope.get("sha256"):
        raise StoreError(f"{path}: damaged: its digest does not match")
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    content = _canonical(data)
    raw = b'{"sha256":"%b","data":%b}\n' % (hashlib.sha256(content).hexdigest().encode(), content)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(handle)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; what was there before stays") from error


def _sync_directory(path: Path) -> None:
    """Make a rename outlive a power failure, as fsync(2) says.

    Only for the state: of the history a power failure may cost the newest entry, and each sync costs
    an apply some 10 ms of a busy disk.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
