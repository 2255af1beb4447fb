"""Backends with several addresses: no client is lost to one that does not answer, and the one that does is kept."""

from __future__ import annotations

import socket

import pytest

from dataplane.net.sockopts import to_sockaddr
from tests.dataplane.net.rig import rigged
from tests.support.clients import reset


def two(rig, first):
    """Put the backend at `first`, where nobody listens, and at its end's address; return both."""
    port = rig.ends[0].port
    addresses = (to_sockaddr(f"{first}:{port}"), to_sockaddr(f"127.0.0.1:{port}"))
    rig.backend().locate((), None)  # else the one that it had stays the first
    rig.backend().locate(addresses, None)
    return addresses


def silence(rig, host):
    """Listen at another address of the backend, with a full queue: dials to it get no answer."""
    full = rig.keep(socket.create_server((host, rig.ends[0].port), backlog=0))
    rig.keep(socket.create_connection(full.getsockname(), timeout=5))


def served(rig, client):
    """Have the client served, and end it."""
    client.sendall(b"hello")
    end = rig.ends[0].accept()
    assert rig.receive(end, 5) == b"hello"
    client.close()
    end.close()
    rig.until(lambda: not rig.service.flows)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_refused_address(retries):
    """The next address serves the client, the backend is not blamed, and later clients go there at once."""
    with rigged(retries=retries) as rig:
        dead, alive = two(rig, "127.0.0.2")
        served(rig, rig.client())
        assert (rig.backend().address, rig.backend().others) == (alive, (dead,))
        served(rig, rig.client())
        assert rig.failures == []
        assert rig.backend().totals.connect_failures == 0
        rig.check_accounts()


def test_a_silent_address():
    """An address that does not answer has its share of the time, and then the next one serves the client."""
    with rigged(timeouts={"connect": "2s"}) as rig:
        silence(rig, "127.0.0.2")
        _, alive = two(rig, "127.0.0.2")
        client = rig.client()
        rig.pass_time(0.9)
        assert rig.ends[0].nobody()
        rig.pass_time(0.2)
        served(rig, client)
        assert rig.backend().address == alive
        rig.check_accounts()


def test_none_of_them():
    """All of them have `timeouts.connect` together; the backend fails once, for what the first has met."""
    with rigged(timeouts={"connect": "1s"}, retries=0) as rig:
        silence(rig, "127.0.0.2")
        silence(rig, "127.0.0.3")
        port = rig.ends[0].port
        addresses = [to_sockaddr(f"127.0.0.{host}:{port}") for host in (9, 2, 3)]
        rig.backend().locate(addresses, None)
        rig.client()
        rig.pass_time(0.9)
        assert rig.service.flows
        rig.pass_time(0.2)
        assert rig.reasons == ["connect_failed"]
        assert rig.failures == [("b0", "connection refused")]
        assert rig.backend().address == addresses[0]
        rig.check_accounts()


def test_a_client_that_leaves_meanwhile():
    """A dial that has gone on to another address is broken off like any other."""
    with rigged(timeouts={"connect": "0s"}) as rig:
        silence(rig, "127.0.0.3")
        port = rig.ends[0].port
        rig.backend().locate([to_sockaddr(f"127.0.0.{host}:{port}") for host in (9, 3)], None)
        client = rig.client()
        assert rig.service.flows
        reset(client)
        rig.until(lambda: not rig.service.flows)
        assert rig.reasons == ["client_gone"]
        rig.check_accounts()


def test_the_pool_goes_where_clients_go():
    """The pool dials the next address as well; what it holds leads to the one that is kept."""
    with rigged(pool={"mode": "reuse", "min_idle": 2, "max_idle": 4}) as rig:
        for _ in range(2):
            rig.ends[0].accept().close()
        _, alive = two(rig, "127.0.0.2")
        rig.backend().pool.refiller.restock()
        rig.until(lambda: len(rig.backend().pool) == 2)
        assert rig.backend().address == alive
        discarded = dict(rig.backend().totals.discarded)
        client = rig.client()
        ends = [rig.ends[0].accept() for _ in range(2)]
        client.sendall(b"?")
        rig.settle()
        for end in ends:
            end.setblocking(False)
        asked = next(end for end in ends if not rig.silent(end))
        asked.recv(1)
        asked.sendall(b"!")
        assert rig.receive(client, 1) == b"!"
        client.close()
        rig.until(lambda: not rig.service.flows)
        assert rig.backend().totals.discarded == discarded, "it came back: it leads where clients go"
        rig.check_accounts()


def test_what_leads_to_an_address_that_is_gone():
    """Pooled connections go with the address that they lead to, and no others."""
    with rigged(pool={"mode": "preconnect", "min_idle": 1, "max_idle": 1}) as rig:
        dead, alive = two(rig, "127.0.0.2")
        rig.backend().pool.refiller.restock()
        rig.until(lambda: len(rig.backend().pool) == 1)
        rig.backend().locate((alive,), None)
        assert len(rig.backend().pool) == 1
        rig.backend().locate((dead,), None)
        assert len(rig.backend().pool) == 0
