"""The listeners of one process: a change that is refused leaves no trace."""

from __future__ import annotations

import socket
import stat

import pytest

from dataplane.errors import Refused
from tests.dataplane.node.bench import benched, greeter
from tests.support.ports import HeldPort
from tests.support.process import answers


@pytest.fixture
async def bench():
    """A node."""
    async with benched() as bench:
        yield bench


async def test_one_that_cannot_be_had(bench, tmp_path):
    """If one new address cannot be had, the others are closed again, their files removed, and nothing has changed."""
    path = tmp_path / "x.sock"
    async with greeter() as one:
        await bench.put(one.address)
        with HeldPort() as free, socket.create_server(("127.0.0.1", 0)) as taken:
            used = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(Refused, match=used) as refused:
                await bench.put(one.address, listen=[bench.port.address, free.address, f"unix:{path}", used])
            assert refused.value.status == 503
            assert not answers(free.address)
            assert not path.exists()
        assert set(bench.node.listeners) == {bench.port.address}
        _, writer = await bench.connect()
        writer.close()
        await bench.put(one.address, listen=[bench.port.address, f"unix:{path}"])
        assert path.exists()


async def test_the_file_of_a_socket_changes_live(bench, tmp_path):
    """Mode and group change with a snapshot and without another socket; a user that there is not changes nothing."""
    path = tmp_path / "x.sock"

    def mode():
        return stat.S_IMODE(path.stat().st_mode)

    async with greeter() as one:
        await bench.put(one.address, listen=[bench.port.address, {"unix": str(path), "mode": "0600"}])
        assert mode() == 0o600
        inode = path.stat().st_ino
        body = bench.body(one.address, listen=[bench.port.address, {"unix": str(path), "mode": "0660"}])
        planned = await bench.applier.plan(body)
        (change,) = planned["changes"]
        assert (change["kind"], change["action"], change["address"]) == ("listener", "change", f"unix:{path}")
        assert change["fields"] == {"mode": {"from": "0600", "to": "0660"}}
        assert planned["impact"]["listeners"] == []
        await bench.applier.apply(body)
        assert (mode(), path.stat().st_ino) == (0o660, inode)
        bad = {"unix": str(path), "mode": "0666", "owner": "no-such-user"}
        for refused in (bench.applier.plan, bench.applier.apply):
            with pytest.raises(Refused, match="there is no user no-such-user"):
                await refused(bench.body(one.address, listen=[bench.port.address, bad]))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = [f"127.0.0.1:{taken.getsockname()[1]}", {"unix": str(path), "mode": "0666"}]
            with pytest.raises(Refused, match="cannot listen"):
                await bench.put(one.address, listen=listen)
        assert mode() == 0o660, "as before, since the change was not made"
        await bench.put(one.address, listen=[bench.port.address, f"unix:{path}"])
        assert mode() not in {0o600, 0o660}, "what the umask leaves"
        assert path.stat().st_ino == inode


async def test_sockets_of_a_service_manager(bench, tmp_path):
    """A socket that a service manager opened survives a change that is refused: nobody could open it again."""
    with HeldPort() as port:
        given = socket.create_server((port.host, port.port))
        given.setblocking(False)
        bench.listeners.new.inherited = {port.address: [given]}
        async with greeter() as one:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                used = f"127.0.0.1:{taken.getsockname()[1]}"
                with pytest.raises(Refused):
                    await bench.put(one.address, listen=[port.address, used])
            assert given.fileno() >= 0
            await bench.put(one.address, listen=[port.address])
            assert bench.node.listeners[port.address].sock is given


@pytest.mark.parametrize("end", ["close", "leave_all"])
async def test_what_was_inherited_and_never_used_is_closed_with_the_rest(bench, end):
    """A process that drains must not keep a port open from which nobody accepts."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        address = outside.getsockname()
        bench.listeners.new.inherited = {"x": [outside]}
        getattr(bench.listeners, end)()
        assert not answers(f"127.0.0.1:{address[1]}")
