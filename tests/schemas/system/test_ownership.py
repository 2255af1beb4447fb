"""Whose a file is: what root makes becomes the folder's owner's, and an error says whose a path is."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.system.ownership import explain_error, give_to_owner, make_directory, open_or_make
from tests.support.users import SERVICE, acting_as_service, needs_two_users, owner


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the service's, where all may go in (`tmp_path` is below one that only we may enter)."""
    with tempfile.TemporaryDirectory(prefix="lb-test-") as made:
        Path(made).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(made, SERVICE.pw_uid, SERVICE.pw_gid)
        yield Path(made)


def make(path):
    """Make an empty file."""
    os.close(open_or_make(path, os.O_RDWR))


@needs_two_users
def test_what_root_makes_is_the_folders_owners(folder):
    """Files, folders, and folders in folders that are made on the way."""
    make_directory(folder / "a" / "b")
    make(folder / "a" / "b" / "file")
    for path in (folder / "a", folder / "a" / "b", folder / "a" / "b" / "file"):
        assert owner(path) == SERVICE.pw_name
    assert stat.S_IMODE((folder / "a" / "b").stat().st_mode) == 0o700


@needs_two_users
def test_what_was_there_is_not_given(folder):
    """Neither a file, nor what a link leads to: the folder's owner may have laid it there."""
    (folder / "own").write_text("")
    (folder / "elsewhere").mkdir()
    os.chown(folder / "elsewhere", 0, 0)
    (folder / "link").symlink_to(folder / "elsewhere" / "secret")
    make(folder / "own")
    make(folder / "link")
    make_directory(folder / "elsewhere")
    assert {owner(folder / "own"), owner(folder / "elsewhere")} == {"root"}
    assert owner(folder / "elsewhere" / "secret") == "root"


@needs_two_users
def test_only_root_gives(folder, tmp_path):
    """In a folder of root's nothing is given, and who is not root makes files of its own."""
    make(tmp_path / "file")
    assert owner(tmp_path / "file") == "root"
    with acting_as_service():
        make(folder / "file")
    assert owner(folder / "file") == SERVICE.pw_name


@needs_two_users
def test_a_root_that_may_not_give(folder, monkeypatch):
    """Without CAP_CHOWN, as in a container, a file stays root's, and is there."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with (folder / "file").open("w") as file:
        give_to_owner(file.fileno(), folder)
    assert owner(folder / "file") == "root"


def test_directory(tmp_path):
    """One that is there is fine, a file in its place is not."""
    make_directory(tmp_path / "a")
    make_directory(tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_directory(tmp_path / "file" / "a")


DENIED = PermissionError(errno.EACCES, "Permission denied")


@needs_two_users
def test_roots_file_in_the_services_folder(folder):
    """The owner of the folder takes it back."""
    (folder / "made").mkdir(mode=0o700)
    (folder / "file").write_text("")
    with acting_as_service():
        said = explain_error(folder / "made" / "inside", DENIED)
        assert said == (
            f"Permission denied: {folder}/made belongs to root, not to nobody; "
            f"to put it right: sudo chown -R nobody {folder}/made"
        )
        assert explain_error(folder / "file", DENIED).endswith(f"sudo chown nobody {folder}/file")


@needs_two_users
def test_others_folder(tmp_path):
    """Whoever meets a folder of others is told whom to be."""
    (tmp_path / "run").mkdir()
    with tempfile.TemporaryDirectory(prefix="lb-test-") as roots, acting_as_service():
        said = explain_error(Path(roots) / "control.sock", DENIED)
    assert said == (
        f"Permission denied: {roots} belongs to root, not to nobody; "
        f"use sudo, or give it away: sudo chown -R nobody {roots}"
    )
    os.chown(tmp_path / "run", SERVICE.pw_uid, SERVICE.pw_gid)
    said = explain_error(tmp_path / "run" / "control.sock", DENIED)
    assert said == (f"Permission denied: {tmp_path}/run belongs to nobody, not to root; use sudo -u nobody")


def test_other_errors(tmp_path):
    """What is no question of owners is said as the system says it."""
    assert (
        explain_error(tmp_path, OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    )
    assert explain_error(tmp_path, OSError("AF_UNIX path too long")) == "AF_UNIX path too long"
    assert explain_error(tmp_path, DENIED) == "Permission denied"
