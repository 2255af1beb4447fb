"""Reading an lb.yaml from disk, and turning what is wrong with one into our errors."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controlplane.errors import InputError, UnreadableError

if TYPE_CHECKING:
    from schemas.desired import Desired
    from schemas.errors import InvalidDocument

__all__ = ["input_error", "load", "read_file"]

MAX_BYTES: Final = 1024 * 1024
"""As lb.yaml's own limit says."""


def read_file(path: Path) -> bytes:
    """Read a regular file of at most 1 MiB; a FIFO or a device never makes anybody wait.

    Raises:
        InputError: It is none.
        UnreadableError: The system did not let it be read.
    """
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer, before fstat could say what it is.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):  # before it is made a file object, which cannot be one of a directory
            raise _wrong(
                path, "is a directory, not a file; Docker makes one where a bind mount's source is missing"
            )
        if not stat.S_ISREG(mode):
            raise _wrong(path, "is not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(handle)
    if len(raw) > MAX_BYTES:
        raise _wrong(path, "is larger than 1 MiB")
    return raw


def load(raw: bytes, source: str, folder: Path) -> tuple[dict[str, Any], Desired]:
    """Check the text of an lb.yaml, and return it as JSON and with all that it means.

    Args:
        raw: YAML or JSON.
        source: What messages call it.
        folder: What relative paths of files in it are relative to; in both results they are absolute.

    Raises:
        InputError: With every problem, by line.
    """
    from schemas.desired import at_folder, desired_of  # noqa: PLC0415 - pydantic costs a command 100 ms that needs none of it
    from schemas.document import scan_document  # noqa: PLC0415 - the same
    from schemas.errors import InvalidDocument  # noqa: PLC0415 - the same

    try:
        # Once: 10,000 backends take a third of a second.
        document = at_folder(scan_document(raw), folder.absolute())
        desired = desired_of(document)
    except InvalidDocument as error:
        raise input_error(error, source) from error
    assert isinstance(document.value, dict)  # noqa: S101 - or it would not be valid
    return document.value, desired


def input_error(error: InvalidDocument, source: str) -> InputError:
    """Translate what `schemas` raises."""
    return InputError(
        source,
        [
            {"path": each.path, "message": each.message, "line": each.line, "column": each.column}
            for each in error.problems
        ],
    )


def _wrong(path: Path, reason: str) -> InputError:
    return InputError(str(path), [{"path": "", "message": reason}])


def _failed(path: Path, error: OSError) -> UnreadableError:
    reason = (error.strerror or str(error)).lower()
    return UnreadableError(str(path), [{"path": "", "message": reason}])
