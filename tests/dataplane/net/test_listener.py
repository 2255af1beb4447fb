"""Listening sockets: what they inherit, how they pause, and what becomes of those in their queue."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess

import pytest

from dataplane.errors import BindError
from dataplane.net.listener import open_listener
from tests.dataplane.net.descriptors import looking
from tests.dataplane.net.rig import rigged

PAUSE_S = 0.15


def connect(rig):
    """Connect without waiting for anything but the kernel."""
    host, _, port = rig.address.rpartition(":")
    return rig.keep(socket.create_connection((host, int(port)), 10))


def test_what_clients_inherit():
    """An accepted connection has no Nagle delay, keepalive, and a bound on unacknowledged data."""
    with rigged(timeouts={"idle": "2m"}) as rig:
        rig.client()
        (flow,) = rig.service.flows
        with looking(flow.client.fd) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
        assert not os.get_inheritable(flow.client.fd)
        assert not os.get_inheritable(flow.server.fd)


def test_a_long_connection_gets_keepalive():
    """The backend leg is given its keepalive when it turns out to be no short connection."""
    with rigged() as rig:
        rig.client()
        (flow,) = rig.service.flows
        with looking(flow.server.fd) as sock:
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            rig.pass_time(15.2)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 600_000


def test_it_pauses_while_descriptors_are_short():
    """At the ceiling one more is served, the others wait in the kernel, and each pause is looked at anew."""
    with rigged() as rig:
        rig.reactor.accept_ceiling = 0
        clients = [connect(rig) for _ in range(3)]
        rig.until(lambda: rig.listener.paused)
        assert rig.service.totals.connections == 1
        rig.pass_time(5 * PAUSE_S)
        assert rig.listener.paused
        assert rig.service.totals.connections == 1
        assert set(rig.local_errors) == {errno.EMFILE}
        assert not rig.ended
        rig.reactor.accept_ceiling = 4096
        rig.pass_time(PAUSE_S)
        rig.until(lambda: rig.service.totals.connections == len(clients))
        assert not rig.listener.paused


def test_closing_takes_who_is_in_the_queue():
    """Clients whose connection is complete are served, not reset, when their listener goes."""
    with rigged() as rig:
        clients = [connect(rig) for _ in range(100)]
        rig.listener.close()
        assert rig.service.totals.connections == len(clients)
        for client in clients:
            client.sendall(b"x")
        servers = [rig.ends[0].accept() for _ in clients]
        assert all(rig.receive(server, 1) == b"x" for server in servers)


class TestOpen:
    """`open_listener`."""

    @pytest.mark.parametrize("listen", [True, False])
    def test_in_use(self, listen):
        """The address is named, and how to find out who has it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(BindError, match=f"cannot listen on {address}.*ss -ltnp"):
                open_listener(address, reuse_port=False, listen=listen)

    def test_not_ours(self):
        """An address that this machine does not have."""
        with pytest.raises(BindError, match=r"192\.0\.2\.1:80"):
            open_listener("192.0.2.1:80", reuse_port=False)

    def test_reuse_port(self):
        """Several may listen with it, and nobody without."""
        first = open_listener("127.0.0.1:0", reuse_port=True)
        address = f"127.0.0.1:{first.getsockname()[1]}"
        open_listener(address, reuse_port=True).close()
        with pytest.raises(BindError):
            open_listener(address, reuse_port=False)
        first.close()

    def test_both_families_on_one_port(self):
        """`[::]` takes IPv6 only, so `0.0.0.0` with the same port is no conflict."""
        six = open_listener("[::]:0", reuse_port=False)
        open_listener(f"0.0.0.0:{six.getsockname()[1]}", reuse_port=False).close()
        six.close()

    def test_a_name(self):
        """A host name is resolved."""
        open_listener("localhost:0", reuse_port=False).close()
        with pytest.raises(BindError, match="no-such-host"):
            open_listener("no-such-host.invalid:80", reuse_port=False)

    def test_unix_sockets(self, tmp_path):
        """A stale file is replaced; a live socket and any other file stay."""
        path = tmp_path / "x y.sock"
        first = open_listener(f"unix:{path}", reuse_port=False)
        for listen in (True, False):
            with pytest.raises(BindError) as caught:
                open_listener(f"unix:{path}", reuse_port=False, listen=listen)
            said = f"Address already in use; see who has it with: ss -xlp | grep -F '{path}'"
            assert str(caught.value) == f"cannot listen on unix:{path}: {said}"
        first.close()
        assert stat.S_ISSOCK(path.stat().st_mode)
        open_listener(f"unix:{path}", reuse_port=False, listen=False).close()
        assert path.exists()
        open_listener(f"unix:{path}", reuse_port=False).close()
        path.unlink()
        path.write_text("mine")
        with pytest.raises(BindError, match=f"File exists; what is there is no socket.*ls -l '{path}'"):
            open_listener(f"unix:{path}", reuse_port=False)
        assert path.read_text() == "mine"
        with pytest.raises(BindError, match=f"its folder is not there: {tmp_path}/no"):
            open_listener(f"unix:{tmp_path}/no/x.sock", reuse_port=False)

    @pytest.mark.needs("ss")
    def test_the_hint_for_a_unix_socket_finds_who_has_it(self, tmp_path):
        """What is to be typed names the process."""
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(str(tmp_path / "x.sock"))
            taken.listen()
            with pytest.raises(BindError) as caught:
                open_listener(f"unix:{tmp_path}/x.sock", reuse_port=False)
            command = str(caught.value).partition("with: ")[2]
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            assert f"pid={os.getpid()}," in done.stdout

    def test_nothing_is_left_open(self, no_leaks):
        """An error costs no descriptor."""
        for address in ("192.0.2.1:80", "unix:/no/such/folder/x", "no-such-host.invalid:1"):
            with pytest.raises(BindError):
                open_listener(address, reuse_port=False)
