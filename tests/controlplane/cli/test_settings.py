"""What the global options say: the token's file."""

from __future__ import annotations

import pytest

from controlplane.cli.settings import read_token
from controlplane.errors import InputError


def test_token_is_the_files_one_line(tmp_path):
    """Blanks and line ends around it are no part of it."""
    file = tmp_path / "token"
    file.write_text(" open sesame\n")
    assert read_token("--token-file", file) == "open sesame"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "is not one line"),
        ("schl\u00fcssel".encode(), "is not ASCII"),
    ],
)
def test_what_no_header_can_carry_is_refused(tmp_path, content, why):
    """The message names option and file, and what is wrong with it; the command ends with 2."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_token("--http-token-file", file)
    assert (str(caught.value), caught.value.exit_code) == (f"--http-token-file {file}: {why}", 2)
