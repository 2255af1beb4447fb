"""Addresses that belong to a network interface: link-local ones, and what only the machine knows to be its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from schemas.system.machine import HERE
from tests.support.dataplane import DataPlane
from tests.support.namespaces import Network, needs_namespaces

pytestmark = [needs_namespaces]

PORT = 4000
"""In a network of the test's own nobody else has it."""
CHECK = {"active": {"type": "tcp", "interval": "100ms"}}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A network with a link-local and two ordinary addresses, which tests leave as it was."""
    with _network() as network:
        yield network


@pytest.fixture(scope="module")
def running(network: Network) -> Iterator[Callable[[int], DataPlane]]:
    """Return the data plane there that has so many workers; it is started when it is asked for first."""
    with contextlib.ExitStack() as stack:
        planes: dict[int, DataPlane] = {}

        def get(workers: int) -> DataPlane:
            if workers not in planes:
                planes[workers] = stack.enter_context(_plane(network, workers))
            return planes[workers]

        yield get


@pytest.fixture(params=[1, 2])
def plane(request: pytest.FixtureRequest, running: Callable[[int], DataPlane]) -> Iterator[DataPlane]:
    """A data plane there that runs nothing, with one worker or with two."""
    plane = running(request.param)
    yield plane
    plane.put_snapshot({})
    plane.wait_status(lambda status: not status["services"])


def _network() -> Network:
    return Network("fe80::1/64 nodad", "10.9.9.1/24", "fd09::1/64 nodad")


def _plane(network: Network, workers: int) -> DataPlane:
    plane = DataPlane(["--workers", str(workers)])
    plane.argv = network.within(plane.argv)
    return plane


def health(plane: DataPlane) -> dict[str, str]:
    """Return what is observed of the one backend."""
    found: dict[str, str] = plane.status()["services"]["web"]["backends"][0]["health"]
    return found


def test_which_addresses_are_ours(network):
    """Those of every interface, a second one as well; not those of a neighbour, nor what no route leads to."""
    machine = HERE
    network.ip("address", "add", "10.9.9.7/24", "dev", "v0")
    with network.entered():
        for address in ("127.0.0.5", "::1", "10.9.9.1", "10.9.9.7", "fd09::1", "fe80::1%v0"):
            assert machine.is_local(address), address
        for address in ("10.9.9.2", "192.0.2.1", "fd09::2", "2001:db8::1", "fe80::2%v0", "fe80::1%v9"):
            assert not machine.is_local(address), address
    network.ip("address", "del", "10.9.9.7/24", "dev", "v0")


@pytest.mark.parametrize("header", ["off", "v1", "v2"])
def test_link_local_listener_and_backend(network, plane, header):
    """`[fe80::1%v0]` works on both sides: accepted, dialled, checked, in PROXY headers and access lists."""
    with network.entered():
        index = socket.if_nametoindex("v0")
        backend = socket.socket(socket.AF_INET6)
        backend.bind(("fe80::1", 0, 0, index))
        backend.listen()
        backend.settimeout(10)
        port = backend.getsockname()[1]
        web = {
            "listen": f"[fe80::1%v0]:{PORT}",
            "backends": [f"[FE80::1%v0]:{port}"],
            "health": CHECK,
            "pool": {"mode": "off"},
            "access": {"allow": ["fe80::/10"]},
            "proxy_protocol": {"send": header},
        }
        plane.put_snapshot({"web": web})
        plane.wait_status(lambda status: status["services"]["web"]["backends"][0]["health"]["state"] == "up")
        client = socket.socket(socket.AF_INET6)
        client.settimeout(10)
        client.connect(("fe80::1", PORT, 0, index))
        near = client.getsockname()
        client.sendall(b"hello")
    wanted = {"v1": f"PROXY TCP6 fe80::1 fe80::1 {near[1]} {PORT}\r\nhello".encode(), "off": b"hello"}.get(
        header
    )
    with backend, client:
        while True:  # checks connect as well
            connection, _ = backend.accept()
            with connection:
                connection.settimeout(10)
                got = b""
                while not got.endswith(b"hello") and (piece := connection.recv(1000)):
                    got += piece
                if got.endswith(b"hello"):
                    assert wanted is None or got == wanted
                    break
    status = plane.status()["services"]["web"]
    assert status["listeners"][0]["address"] == f"[fe80::1%v0]:{PORT}"
    assert status["backends"][0]["address"] == f"[fe80::1%v0]:{port}"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interface_that_is_not_there(workers):
    """A listener at it cannot be had, a backend at it is down, and both say which; it is used once it is there."""
    with _network() as network, _plane(network, workers) as plane:
        status, body = plane.request(
            "PUT", "/v1/snapshot", {"generation": 1, "services": {"web": {"listen": f"[fe80::1%v9]:{PORT}"}}}
        )
        assert (status, body["code"]) == (503, "bind_failed")
        assert "its network interface is not there" in body["message"]
        web = {
            "listen": f"127.0.0.1:{PORT}",
            "backends": ["[fe80::1%v9]:1"],
            "health": {"active": {"type": "none"}},
        }
        plane.put_snapshot({"web": web})
        plane.wait_status(lambda _: "there is no network interface v9" in health(plane)["cause"])
        assert health(plane)["state"] == "down"
        network.ip("link", "set", "v1", "down")
        network.ip("link", "set", "v1", "name", "v9")
        plane.wait_status(lambda _: health(plane)["state"] == "unknown")


def test_an_address_of_this_machine(network, plane):
    """A listener on every address takes those of all interfaces: a backend at one is called by nobody, a neighbour is."""
    address = f"10.9.9.1:{PORT}"
    web = {"listen": f"0.0.0.0:{PORT}", "backends": [address, f"10.9.9.2:{PORT}"], "health": CHECK}
    plane.put_snapshot({"web": web})
    ours, neighbour = plane.wait_status(lambda _: True)["services"]["web"]["backends"]
    assert ours["health"]["state"] == "down"
    assert f"{address} is where this service itself listens" in ours["health"]["cause"]
    assert "listens" not in neighbour["health"]["cause"]
    network.ip("address", "add", "10.9.9.2/24", "dev", "v0")  # a virtual IP comes
    plane.wait_status(lambda status: "listens" in status["services"]["web"]["backends"][1]["health"]["cause"])
    # What the checks that were under way had begun has ended.
    plane.wait_status(lambda status: status["services"]["web"]["active"] == 0)
    network.ip("address", "del", "10.9.9.2/24", "dev", "v0")
    plane.wait_status(
        lambda status: "listens" not in status["services"]["web"]["backends"][1]["health"]["cause"]
    )


def test_both_families(network, plane):
    """`dual_stack` listens on all addresses of both families, and can be switched while it runs; `freebind` waits for one."""

    def put(**options):
        listen = {"address": f"[::]:{PORT}", **options}
        return plane.put_snapshot(
            {"web": {"listen": [listen, {"address": f"192.0.2.9:{PORT + 1}", "freebind": True}]}}
        )

    def reaches(host, port=PORT):
        with network.entered(), contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=10).close()
            return True
        return False

    put()
    assert (reaches("fd09::1"), reaches("10.9.9.1")) == (True, False)
    changes = put(dual_stack=True)["changes"]
    assert changes == [{"action": "add", "kind": "listener", "service": "web", "address": f"0.0.0.0:{PORT}"}]
    assert (reaches("fd09::1"), reaches("10.9.9.1")) == (True, True)
    put()
    assert (reaches("fd09::1"), reaches("10.9.9.1")) == (True, False)
    assert not reaches("192.0.2.9", PORT + 1)
    network.ip("address", "add", "192.0.2.9/32", "dev", "v0")
    try:
        assert reaches("192.0.2.9", PORT + 1)
    finally:
        network.ip("address", "del", "192.0.2.9/32", "dev", "v0")


def test_what_everybody_knows(plane):
    """A loopback address behind a listener on every address is refused with 422, with its path."""
    services = {"web": {"listen": f"0.0.0.0:{PORT}", "backends": ["127.0.0.1:5", f"127.0.0.9:{PORT}"]}}
    generation = plane.get("/v1/info")["generation"] + 1
    status, body = plane.request("PUT", "/v1/snapshot", {"generation": generation, "services": services})
    assert status == 422
    assert [each["path"] for each in body["details"]] == ["services.web.backends[1]"]
