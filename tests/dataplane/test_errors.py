"""What the data plane raises: one tree, and texts that say what to do."""

import errno
import os

import pytest

from dataplane import errors
from dataplane.errors import BindError, DataPlaneError


def test_tree():
    """Whatever is raised here is a DataPlaneError, and is in the tree of the docstring."""
    raised = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert raised
    for name, kind in raised.items():
        assert issubclass(kind, DataPlaneError)
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("address", "number", "hint"),
    [
        ("127.0.0.1:80", errno.EADDRINUSE, "ss -ltnp"),
        ("127.0.0.1:80", errno.EACCES, "CAP_NET_BIND_SERVICE"),
        ("192.0.2.1:80", errno.EADDRNOTAVAIL, "freebind: true"),
        ("unix:/run/a b", errno.EADDRINUSE, "grep -F '/run/a b'"),
        ("unix:/run/lb/a", errno.ENOENT, "its folder is not there: /run/lb"),
    ],
)
def test_bind(address: str, number: int, hint: str):
    """An address that cannot be had is told with the cause, and with what to do about it."""
    text = str(BindError(address, OSError(number, os.strerror(number))))
    assert text.startswith(f"cannot listen on {address}: {os.strerror(number)}; ")
    assert hint in text


def test_bind_in_own_words():
    """A cause that has words of its own gets no hint."""
    assert str(BindError("unix:/a", OSError(errno.ENOENT, "there is no user x"))) == (
        "cannot listen on unix:/a: there is no user x"
    )
