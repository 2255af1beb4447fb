"""Arguments of commands: what is refused before anything begins."""

from __future__ import annotations

from controlplane.cli.kinds import HOME


def test_a_file_that_cannot_be_looked_at():
    """It is no usage error and no traceback: the daemon says why it cannot be read, and tries again."""
    name = (
        "x" * 300
    )  # longer than a file's name may be: stat fails, as it does in a folder that may not be searched
    assert HOME.convert(name, None, None).place == name
