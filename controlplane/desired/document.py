"""An lb.yaml: read from a file, a pipe or standard input, and checked; what is wrong with one becomes our errors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controlplane.errors import InputError, UnidentifiedError, UnreadableError
from schemas.system.ownership import explain_error

if TYPE_CHECKING:
    from schemas.desired import Desired
    from schemas.errors import InvalidDocument
    from schemas.reading.document import Document
    from schemas.variables import Known, Look, Variables

MAX_BYTES: Final = 1024 * 1024
"""As lb.yaml's own limit says."""
STDIN: Final = Path("-")
PIPE_S: Final = 30.0
"""How long whoever writes into a pipe has for all of it."""
_PIECE: Final = 65536
_STDIN: Final = 0
_PATH_PART: Final = re.compile(r'([A-Za-z0-9_-]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')
_DIRECTORY: Final = "is a directory, not a file; Docker makes one where a bind mount's source is missing"


class Given(NamedTuple):
    """An lb.yaml that a command was given."""

    raw: bytes
    source: str
    """What messages call it: its path, or `-`."""
    folder: Path | None
    """What relative paths in it are relative to: the file's folder; for a pipe, where the command was started. None: it has none."""


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
    """As written, with absolute paths of files and with variables: what the history keeps and the daemon is sent."""
    desired: Desired
    """What it is on this node."""
    variables: Mapping[str, Known] = field(default_factory=dict)
    """Those that it uses, with what stands for them here."""

    @classmethod
    def of_text(cls, raw: bytes, source: str, folder: Path | None, look: Look | None = None) -> Proposal:
        """Check the text of an lb.yaml, YAML or JSON.

        Args:
            raw: The text.
            source: What messages call it.
            folder: What relative paths of files in it are relative to; in the proposal they are absolute. None: it has
                none (`schemas.files.at_folder`).
            look: Finds the node's variables; None: there are none.

        Raises:
            InputError: With every problem, by line; UnidentifiedError if it may pass by itself.
        """
        from schemas.desired import desired_of  # noqa: PLC0415 - pydantic costs a command 100 ms that needs none of it
        from schemas.errors import InvalidDocument  # noqa: PLC0415 - the same
        from schemas.files import at_folder  # noqa: PLC0415 - the same
        from schemas.reading.document import scan_document  # noqa: PLC0415 - the same
        from schemas.variables import Variables, replaced, variables_in  # noqa: PLC0415 - the same

        document: Document | None = None
        variables, names = Variables(), frozenset[str]()
        try:
            # Once: 10,000 backends take a third of a second.
            document = at_folder(scan_document(raw), folder and folder.absolute())
            names = variables_in(document.value)
            if look is not None and names:
                variables = look(names, document.value.get("consul"))
            desired = desired_of(document, variables)
        except InvalidDocument as error:
            problem = input_error(error, source)
            if variables.passing and document is not None and _fits(document, variables):
                raise UnidentifiedError(problem.source, problem.problems) from error
            raise problem from error
        assert isinstance(document.value, dict)  # noqa: S101 - or it would not be valid
        used = replaced(document.value, variables).used if names else {}
        return cls(document.value, desired, used)

    @classmethod
    def of_file(cls, path: Path, look: Look | None = None) -> Proposal:
        """Read and check what a command was given; raises what `read_given` and `of_text` raise."""
        return cls.of_text(*read_given(path), look)

    @classmethod
    def of_document(
        cls, document: dict[str, Any], source: str, folder: Path | None, look: Look | None = None
    ) -> Proposal:
        """Check an lb.yaml that is JSON already; see `of_text`."""
        return cls.of_text(json.dumps(document).encode(), source, folder, look)


@dataclass(frozen=True, slots=True)
class Reader:
    """How this node reads an lb.yaml."""

    folder: Path | None
    """What relative paths in a document are relative to that does not say where it comes from; None: as `of_text` has it."""
    look: Look

    def text(self, raw: bytes, source: str, folder: Path | None = None) -> Proposal:
        """Check a text; see `Proposal.of_text`."""
        return Proposal.of_text(raw, source, self.folder if folder is None else folder, self.look)

    def document(self, document: dict[str, Any], source: str) -> Proposal:
        """Check what is JSON already; see `Proposal.of_text`."""
        return Proposal.of_document(document, source, self.folder, self.look)


def _fits(document: Document, variables: Variables) -> bool:
    """Tell whether a document is right but for variables that are not known."""
    from schemas.desired import desired_of  # noqa: PLC0415 - as above
    from schemas.errors import InvalidDocument  # noqa: PLC0415 - the same

    try:
        desired_of(document, replace(variables, placeholders=True))
    except InvalidDocument:
        return False
    return True


def check_everywhere(given: Given, nodes: Mapping[str, Mapping[str, str]]) -> Proposal:
    """Check a text for many nodes, each with the variables that it has; without a node, with placeholders.

    Raises:
        InputError: With every problem, by line; what is wrong only for some nodes names them.
    """
    from schemas.variables import Known, Variables  # noqa: PLC0415 - as above

    given = given._replace(folder=None)  # what is for all nodes is in a key, which has none
    proposal = Proposal.of_text(*given, lambda *_: Variables(placeholders=True))
    found: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for node, values in sorted(nodes.items()) if proposal.variables else ():
        known = {name: Known(value, "as the node says") for name, value in values.items()}
        variables = Variables(known, why="the node has no such variable")
        try:
            Proposal.of_text(*given, lambda *_, told=variables: told)
        except InputError as error:
            for problem in error.problems:
                found.setdefault(tuple(problem.items()), []).append(node)
    if found:
        problems = [
            {**dict(key), "message": f"node {', '.join(who)}: {dict(key)['message']}"}
            for key, who in found.items()
        ]
        raise InputError(given.source, problems)
    return proposal


def placed(error: InputError, given: Given) -> InputError:
    """Return what somebody else said of a text that was sent as JSON, with the text's own lines."""
    from schemas.reading.document import scan_document  # noqa: PLC0415 - as above

    document = scan_document(given.raw)
    problems = []
    for problem in error.problems:
        line, column = document.locate(parse_path(problem["path"]))
        problems.append({**problem, "line": line, "column": column})
    return type(error)(given.source, problems)


def parse_path(text: str) -> tuple[str | int, ...]:
    """Read what `schemas.errors.format_path` has written; what it has shortened ends the path."""
    parts: list[str | int] = []
    for plain, index, quoted in _PATH_PART.findall(text):
        with contextlib.suppress(ValueError):
            parts.append(plain or (int(index) if index else json.loads(quoted)))
    return tuple(parts)


def input_error(error: InvalidDocument, source: str) -> InputError:
    """Translate what `schemas` raises."""
    return InputError(source, [asdict(each) for each in error.problems])


def _wrong(path: Path, reason: str) -> InputError:
    return InputError(str(path), [{"path": "", "message": reason}])


def _failed(path: Path, error: OSError) -> UnreadableError:
    reason = explain_error(path, error)
    return UnreadableError(str(path), [{"path": "", "message": reason[:1].lower() + reason[1:]}])
