"""Real data planes of every form pick what the vectors say: nodes of a cluster need not be alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.vectors import VECTORS
from tests.support.wait import wait_for

CASE = next(case for case in VECTORS if case["name"] == "two tiers")
FORMS = {
    "as built": ((), {}),
    "interpreted": ((), {"LIVELB_INTERPRETED": "1"}),
    "workers": (("--workers", "2"), {}),
}


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


def served(address: str, clients: Iterable[str]) -> dict[str, str]:
    """Return the backend that serves each of these clients."""
    return {client: ask(address, b"x\n", source=client).decode().removesuffix(":x\n") for client in clients}


@pytest.mark.parametrize("form", FORMS)
def test_clients_get_the_backends_of_the_vectors(form: str, address: str) -> None:
    """By what it serves, whatever is down; and table_hash is that of every other node."""
    arguments, environment = FORMS[form]
    with ExitStack() as stack:
        servers = {each["id"]: stack.enter_context(LineServer(each["id"])) for each in CASE["backends"]}
        plane = stack.enter_context(DataPlane(arguments, environment=environment))
        backends = [{**each, "address": servers[each["id"]].address} for each in CASE["backends"]]
        health = {"active": {"type": "none"}, "panic": "0%"}
        web = {
            "listen": address,
            "mode": "sticky",
            "seed": CASE["seed"],
            "backends": backends,
            "health": health,
        }
        plane.put_snapshot({"web": web})
        assert plane.status()["services"]["web"]["table_hash"] == CASE["table_hash"]
        for each in CASE["picks"]:
            verdicts = {
                backend: {"state": "down" if backend in each["down"] else "up", "cause": "a test"}
                for backend in servers
            }
            status, _ = plane.request("PUT", "/v1/health", {"verdicts": {"web": verdicts}})
            assert status == 200
            near = {client for client in each["clients"] if client.startswith("127.0.0.")}
            wanted = {client: each["clients"][client] for client in near}
            # A worker hears of it a moment later.
            wait_for(lambda wanted=wanted: served(address, wanted) == wanted, f"{each['down']} to be down")
            wanted = {client: backend for client, backend in each["clients"].items() if client}
            explained = {
                client: plane.get(f"/v1/explain?service=web&client={client}")["candidates"][0]["id"]
                for client in wanted
            }
            assert explained == wanted
