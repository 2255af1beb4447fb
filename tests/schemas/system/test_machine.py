"""Which addresses are this machine's own: the kernel's word, without a packet."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.system.machine import HERE


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("fe80::1%nowhere", False),
    ],
)
def test_an_address_is_ours_if_the_kernel_delivers_it_here(host: str, local: bool) -> None:  # noqa: FBT001 - a table
    """Loopback is; documentation's networks, and an interface that is not there, are not."""
    assert HERE.is_local(host) is local


def test_a_path_is_the_one_behind_its_links(tmp_path: Path) -> None:
    """Two names of one socket are one."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert HERE.real_path(str(tmp_path / "link")) == str(tmp_path / "real")
