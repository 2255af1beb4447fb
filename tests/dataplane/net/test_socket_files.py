"""Unix sockets' mode, owner and group; and IP_FREEBIND."""

from __future__ import annotations

import grp
import os
import socket
import stat

import pytest

from dataplane.core.spec import ListenSpec
from dataplane.errors import BindError
from dataplane.net.listener import open_listener
from dataplane.net.socket_files import PLAIN, SocketFiles

ME = str(os.geteuid())
MY_GROUP = grp.getgrgid(os.getegid()).gr_name


def mode(path):
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o077, 0])
def test_a_new_socket(tmp_path, mask):
    """It has what was asked for before anybody can connect, whatever the umask."""
    path = tmp_path / "s"
    before = os.umask(mask)
    try:
        with open_listener(
            f"unix:{path}", reuse_port=False, spec=ListenSpec(mode=0o660, owner=ME, group=MY_GROUP)
        ):
            assert mode(path) == 0o660
            assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ListenSpec(owner="no-such-user"), "there is no user no-such-user"),
        (ListenSpec(group="no-such-group"), "there is no group no-such-group"),
        (ListenSpec(owner="4294967295"), "there is no user 4294967295"),  # -1, as chown(2) would take it
        (ListenSpec(owner="99999999999"), "there is no user 99999999999"),
        (ListenSpec(group="99999999999"), "there is no group 99999999999"),
    ],
)
@pytest.mark.parametrize("listen", [True, False])
def test_nobody_of_that_name(tmp_path, spec, message, listen):
    """It is refused, also by a rehearsal, and leaves no file."""
    path = tmp_path / "s"
    with pytest.raises(BindError, match=message):
        open_listener(f"unix:{path}", reuse_port=False, listen=listen, spec=spec)
    assert not path.exists()


def test_a_socket_that_is_there(tmp_path):
    """It changes with the rest of a change, goes back if that is not made, and to the usual if nothing is said any more."""
    one, two = tmp_path / "one", tmp_path / "two"
    addresses = [f"unix:{one}", f"unix:{two}"]
    files = SocketFiles()
    with open_listener(addresses[0], reuse_port=False), open_listener(addresses[1], reuse_port=False):
        usual = mode(one)
        wanted = {addresses[0]: ListenSpec(mode=0o600), addresses[1]: ListenSpec(owner="no-such-user")}
        with pytest.raises(BindError, match="there is no user"):
            files.prepare(addresses, wanted)
        assert mode(one) == usual
        files.prepare(addresses, {addresses[0]: ListenSpec(mode=0o600)})
        assert mode(one) == 0o600
        files.abandon()
        assert mode(one) == usual
        files.prepare(addresses, {addresses[0]: ListenSpec(mode=0o600)})
        files.commit()
        files.prepare(addresses, {addresses[0]: PLAIN})
        files.commit()
        assert (mode(one), mode(two)) == (usual, usual)


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "192.0.2.1:80"), (socket.AF_INET6, "[2001:db8::1]:80")]
)
def test_an_address_that_no_interface_has(family, address):
    """With `freebind` it is listened on, so that it is served as soon as it comes; without, the message says what helps."""
    with pytest.raises(BindError, match="freebind: true"):
        open_listener(address, reuse_port=False)
    with open_listener(address, reuse_port=True, spec=ListenSpec(freebind=True)) as sock:
        assert sock.family == family
