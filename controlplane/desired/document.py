"""An lb.yaml: read from a file, a pipe or standard input, and checked; what is wrong with one becomes our errors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controlplane.errors import InputError, UnreadableError
from schemas.system.ownership import explain_error

if TYPE_CHECKING:
    from schemas.desired import Desired
    from schemas.errors import InvalidDocument

MAX_BYTES: Final = 1024 * 1024
"""As lb.yaml's own limit says."""
STDIN: Final = Path("-")
PIPE_S: Final = 30.0
"""How long whoever writes into a pipe has for all of it."""
_PIECE: Final = 65536
_STDIN: Final = 0
_DIRECTORY: Final = "is a directory, not a file; Docker makes one where a bind mount's source is missing"


class Given(NamedTuple):
    """An lb.yaml that a command was given."""

    raw: bytes
    source: str
    """What messages call it: its path, or `-`."""
    folder: Path
    """What relative paths in it are relative to: the file's folder; for a pipe, where the command was started."""


def read_file(path: Path) -> bytes:
    """Read a regular file of at most 1 MiB; a FIFO or a device never makes anybody wait.

    Raises:
        InputError: It is none.
        UnreadableError: The system did not let it be read.
    """
    with _opened(path) as handle:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _wrong(path, "is not a regular file")
        return _read(path, handle, PIPE_S)


def read_given(path: Path, *, deadline_s: float = PIPE_S) -> Given:
    """Read what a command was given: a file, a pipe such as a shell's `<(...)`, or standard input for `-`.

    Raises:
        InputError: It is none of them, or has more than 1 MiB, or its writer is not done after `deadline_s` seconds.
        UnreadableError: The system did not let it be read.
    """
    with _opened(path) as handle:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode) and path != STDIN:
            folder = path.parent
        elif stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            folder = Path()
        elif os.isatty(handle):
            raise _wrong(path, "is a terminal; name a file, or pipe one in")
        else:
            raise _wrong(path, "is neither a file nor a pipe")
        return Given(_read(path, handle, deadline_s), str(path), folder)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Yield a descriptor to read from; what the system says against it, also inside, becomes our error."""
    handle = -1
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer, before fstat could say what it is.
        handle = _STDIN if path == STDIN else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise _wrong(path, _DIRECTORY)
        yield handle
    except OSError as error:
        if path == STDIN and error.errno == errno.EBADF:
            raise _wrong(path, "standard input is closed") from error
        raise _failed(path, error) from error
    finally:
        if handle >= 0 and path != STDIN:
            os.close(handle)


def _read(path: Path, handle: int, deadline_s: float) -> bytes:
    """Read to the end. Waiting comes before each read: of a pipe that nobody writes into yet, reading finds the end."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + deadline_s
    read = bytearray()
    while len(read) <= MAX_BYTES:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _wrong(path, f"has no end after {deadline_s:g} s: whoever writes into it is not done")
        with contextlib.suppress(BlockingIOError):  # somebody else reads from it, too
            piece = os.read(handle, _PIECE)
            if not piece:
                return bytes(read)
            read += piece
    raise _wrong(path, "is larger than 1 MiB")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What somebody wants to run: a valid lb.yaml, as JSON and as values."""

    document: dict[str, Any]
    """As written, with absolute paths of files: what the history keeps and the daemon is sent."""
    desired: Desired

    @classmethod
    def of_text(cls, raw: bytes, source: str, folder: Path) -> Proposal:
        """Check the text of an lb.yaml, YAML or JSON.

        Args:
            raw: The text.
            source: What messages call it.
            folder: What relative paths of files in it are relative to; in the proposal they are absolute.

        Raises:
            InputError: With every problem, by line.
        """
        from schemas.desired import at_folder, desired_of  # noqa: PLC0415 - pydantic costs a command 100 ms that needs none of it
        from schemas.errors import InvalidDocument  # noqa: PLC0415 - the same
        from schemas.reading.document import scan_document  # noqa: PLC0415 - the same

        try:
            # Once: 10,000 backends take a third of a second.
            document = at_folder(scan_document(raw), folder.absolute())
            desired = desired_of(document)
        except InvalidDocument as error:
            raise input_error(error, source) from error
        assert isinstance(document.value, dict)  # noqa: S101 - or it would not be valid
        return cls(document.value, desired)

    @classmethod
    def of_file(cls, path: Path) -> Proposal:
        """Read and check what a command was given; raises what `read_given` and `of_text` raise."""
        return cls.of_text(*read_given(path))

    @classmethod
    def of_document(cls, document: dict[str, Any], source: str, folder: Path) -> Proposal:
        """Check an lb.yaml that is JSON already; see `of_text`."""
        return cls.of_text(json.dumps(document).encode(), source, folder)


def input_error(error: InvalidDocument, source: str) -> InputError:
    """Translate what `schemas` raises."""
    return InputError(source, [asdict(each) for each in error.problems])


def _wrong(path: Path, reason: str) -> InputError:
    return InputError(str(path), [{"path": "", "message": reason}])


def _failed(path: Path, error: OSError) -> UnreadableError:
    reason = explain_error(path, error)
    return UnreadableError(str(path), [{"path": "", "message": reason[:1].lower() + reason[1:]}])
