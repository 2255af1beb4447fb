"""What outlives the process: the last accepted state, the operators' overrides, every applied generation.

    <state dir>/control/lock                 held by the one writer; contains its pid
                        state.json           what should run now
                        history/<n>.json     generation n: when, by whom, what changed
                        documents/<d>.json   the lb.yaml of those generations, by digest
                        identity.json        what the node's Consul agent said of the node
                        canary.json          the canary that runs here, or was over here last

Every file is written beside its place, synced and renamed, so that a crash or a full disk leaves the old one.
Every file carries the digest of its content; one that does not match is never used.
What cannot be read is not taken for missing: it is named, kept, and nothing is concluded from its absence.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from controlplane.core.merge import Override, Place
from controlplane.errors import BusyError, StoreError, UnknownError
from schemas.system.locks import LockedError, lock
from schemas.system.ownership import explain_error, make_directory, open_or_make, replace_file, sync_directory

KEPT_GENERATIONS: Final = 200
"""A year of weekly changes four times over; documents are at most 1 MiB each."""
KEPT_DISCOVERED: Final = 50
"""Generations that discovery or the number of nodes made have a share of their own: what is restless pushes out nobody's words."""
KEPT_CHANGES: Final = 200
"""Changes named in one entry; a first apply of 10,000 backends has as many."""
_LOCK_POLL_S: Final = 0.05
_STAYS: Final = "; what was there before stays"


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
    share: int | None = None
    """By how many nodes limits of the cluster are divided here; None: that was never known."""
    scoped: dict[str, dict[str, float]] = field(default_factory=dict)
    """By service: those limits, as lb.yaml has them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One applied generation."""

    generation: int
    hash: str
    when: str
    """RFC 3339, UTC."""
    by: str
    origin: str
    """`apply`, `file`, `rollback`, `discovery` or `cluster`."""
    document: str
    """Digest of its lb.yaml."""
    changes: list[dict[str, Any]]
    """At most `KEPT_CHANGES`."""
    more: int = 0
    """How many changes are not named."""


@dataclass(frozen=True, slots=True)
class History:
    """Every generation that is still known."""

    entries: tuple[Entry, ...] = ()
    """The oldest first."""
    unread: tuple[str, ...] = ()
    """Why some of it cannot be read, one line for each file."""

    def report(self) -> dict[str, Any]:
        """Return it for people and programs."""
        return {
            "history": [asdict(entry) for entry in self.entries],
            "warnings": [f"a part of the history cannot be read: {why}" for why in self.unread],
        }


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
        self._unusable = False

    @contextlib.contextmanager
    def writer(self, *, timeout_s: float = 0.0) -> Iterator[None]:
        """Be the one writer inside the `with` block.

        BusyError if another process still is after `timeout_s` seconds, StoreError if the directory cannot be written.
        """
        path = self._root / "lock"
        with _explained(path):
            make_directory(self._root)
            handle = open_or_make(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            _lock(handle, str(self._root), timeout_s)
            yield
        finally:
            os.close(handle)

    def load(self) -> State:
        """Read the last accepted state; a fresh one if there is none.

        StoreError if it cannot be read or does not match its digest; the next `save` keeps it.
        """
        path = self._root / "state.json"
        self._unusable = True  # until it was used
        data = _read(path)
        try:
            state = State() if data is None else _state_of(data)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: written by another version ({error})") from error
        self._unusable = False
        return state

    def recover(self) -> State:
        """Return what can be known without `state.json`: the newest lb.yaml of the history, not yet resolved."""
        for entry in reversed(self.history().entries):
            with contextlib.suppress(StoreError, UnknownError):
                return State(generation=entry.generation, document=self.document(entry.document))
        return State()

    def save(self, state: State) -> None:
        """Replace the accepted state; one that could not be loaded is kept beside it, as `state.json.unusable`.

        StoreError if it cannot be written; the old one is still there.
        """
        path = self._root / "state.json"
        if self._unusable:  # it may hold the only word on overrides
            with _explained(path, _STAYS), contextlib.suppress(FileNotFoundError):
                path.replace(self._root / "state.json.unusable")
            self._unusable = False
        _write(path, {**_fields(state), "overrides": [*map(asdict, state.overrides)]})
        # Of the history a power failure may cost the newest entry: each sync costs an apply some 10 ms of a busy disk.
        with _explained(self._root):
            sync_directory(self._root)

    def canary(self) -> dict[str, Any] | None:
        """Read what is remembered of a canary; None: nothing. StoreError if it cannot be read."""
        return _read(self._root / "canary.json")

    def keep_canary(self, memory: dict[str, Any] | None) -> None:
        """Replace what is remembered of a canary, or forget it; StoreError if that is not possible."""
        path = self._root / "canary.json"
        if memory is not None:
            _write(path, memory)
            return
        with _explained(path, _STAYS):
            path.unlink(missing_ok=True)

    def record(self, entry: Entry, document: dict[str, Any]) -> None:
        """Add a generation to the history, unless it is there, and forget what is too old.

        StoreError if it cannot be written; nothing was forgotten.
        """
        kind = ".discovery" if entry.origin in {"discovery", "cluster"} else ""
        path = self._root / "history" / f"{entry.generation:012}{kind}.json"
        with contextlib.suppress(StoreError):  # a damaged entry is replaced
            known = _read(path)
            if known is not None and known["hash"] == entry.hash:
                return
        text = self._root / "documents" / f"{entry.document}.json"
        with _explained(text):  # the directory may not be looked into
            known_text = text.exists()
        if not known_text:
            _write(text, document)
        _write(path, _fields(entry))
        self._forget()

    def history(self) -> History:
        """Read every generation that is still known; what cannot be read is named."""
        entries: list[Entry] = []
        unread: list[str] = []
        try:
            paths = self._generations()
        except StoreError as error:
            return History(unread=(str(error),))
        for path in paths:
            try:
                if (data := _read(path)) is not None:
                    entries.append(Entry(**data))
            except StoreError as error:
                unread.append(str(error))
            except TypeError as error:
                unread.append(f"{path}: written by another version ({error})")
        return History(tuple(entries), tuple(unread))

    def document(self, digest: str) -> dict[str, Any]:
        """Read the lb.yaml of a generation, as JSON; UnknownError if it is not there, StoreError if it is damaged."""
        data = _read(self._root / "documents" / f"{digest}.json")
        if data is None:
            raise UnknownError(f"the history has no document {digest[:12]}")
        return data

    def identity(self) -> dict[str, str]:
        """Read what was kept of the node's agent; StoreError if it is damaged."""
        data = _read(self._root / "identity.json") or {}
        return {str(name): str(value) for name, value in data.items()}

    def keep_identity(self, values: Mapping[str, str]) -> None:
        """Replace it; StoreError if it cannot be written."""
        with _explained(self._root):
            make_directory(self._root)
        _write(self._root / "identity.json", dict(values))

    def _generations(self) -> list[Path]:
        folder = self._root / "history"
        # `glob` takes a directory that it may not list for an empty one.
        with _explained(folder), contextlib.suppress(FileNotFoundError):
            return sorted(path for path in folder.iterdir() if path.suffix == ".json")
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
        history = self.history()
        if history.unread:  # who knows which documents they need
            return
        used = {entry.document for entry in history.entries}
        for path in (self._root / "documents").glob("*.json"):
            if path.stem not in used:
                path.unlink(missing_ok=True)


def _lock(handle: int, what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            lock(handle)
        except LockedError as error:
            if time.monotonic() >= deadline:
                raise BusyError(what, error.pid) from error
            time.sleep(_LOCK_POLL_S)  # flock has no deadline of its own, and SIGALRM belongs to the program
        else:
            return


@contextlib.contextmanager
def _explained(path: Path, more: str = "") -> Iterator[None]:
    """Make what the system says against a path our error."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {explain_error(path, error)}{more}") from error


def _state_of(data: dict[str, Any]) -> State:
    overrides = tuple(Override(**each) for each in data["overrides"])
    retracted = tuple((service, key, name) for service, key, name in data["retracted"])
    more = {"overrides": overrides, "retracted": retracted, "discovered": tuple(data["discovered"])}
    return State(**{**data, **more})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with _explained(path), contextlib.suppress(FileNotFoundError):
            return _unsealed(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path}: damaged: {error}") from error
    return None


def _unsealed(raw: bytes) -> dict[str, Any]:
    envelope = json.loads(raw)
    data = envelope.get("data") if isinstance(envelope, dict) else None
    if not isinstance(data, dict) or digest_of(data) != envelope.get("sha256"):
        raise ValueError("its digest does not match")
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    content = _canonical(data)
    raw = b'{"sha256":"%b","data":%b}\n' % (hashlib.sha256(content).hexdigest().encode(), content)
    with _explained(path, _STAYS):
        replace_file(path, [raw])
