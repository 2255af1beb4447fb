"""Which backends of which services lead back into the balancer."""

from __future__ import annotations

import asyncio

from dataplane.core.spec import BackendSpec, OperatorState
from dataplane.node.backend_addresses import Served, find_loops
from dataplane.node.slices import SLICE
from schemas.loops import Machine

MACHINE = Machine(lambda host: host == "192.0.2.1", lambda path: path)


def served(name: str, listen: str, *backends: str) -> Served:
    """Return a service whose backends' ids are b0, b1, ..."""
    return (
        name,
        (listen,),
        [
            BackendSpec(f"b{number}", address, 1, 0, OperatorState.ENABLED)
            for number, address in enumerate(backends)
        ],
    )


async def test_a_backend_that_is_its_own_service_is_refused() -> None:
    """By whichever address of this machine; others are not."""
    service = served("web", "0.0.0.0:80", "127.0.0.1:80", "192.0.2.1:80", "192.0.2.2:80", "127.0.0.1:81")
    found = await find_loops([service], {}, MACHINE)
    assert found.keys() == {"web"}
    assert {backend: set(why) for backend, why in found["web"].items()} == {
        "b0": {"127.0.0.1:80"},
        "b1": {"192.0.2.1:80"},
    }
    assert "this service itself" in found["web"]["b0"]["127.0.0.1:80"]


async def test_a_chain_is_right_and_a_circle_is_not() -> None:
    """The backend that closes a circle of several services is refused, and only that one."""
    first = served("a", "127.0.0.1:1", "127.0.0.1:2")
    assert await find_loops([first, served("b", "127.0.0.1:2", "10.0.0.1:9")], {}, MACHINE) == {}
    found = await find_loops([first, served("b", "127.0.0.1:2", "127.0.0.1:1")], {}, MACHINE)
    assert {name: set(ids) for name, ids in found.items()} == {"b": {"b0"}}


async def test_a_name_is_judged_by_each_of_its_addresses() -> None:
    """One of several that leads back is refused; the others stay."""
    found = await find_loops(
        [served("web", "127.0.0.1:80", "name:80")], {"name:80": ("127.0.0.1:80", "10.0.0.1:80")}, MACHINE
    )
    assert set(found["web"]["b0"]) == {"127.0.0.1:80"}


async def test_the_name_is_refused_where_an_address_closes_the_circle_as_well() -> None:
    """Addresses come first, in whichever order they are written."""
    named = served("a", "127.0.0.1:1", "name:2")
    plain = served("b", "127.0.0.1:2", "127.0.0.1:1")
    resolved = {"name:2": ("127.0.0.1:2",)}
    for services in ([named, plain], [plain, named]):
        found = await find_loops(services, resolved, MACHINE)
        assert {name: set(ids) for name, ids in found.items()} == {"a": {"b0"}}


async def test_thousands_of_backends_leave_the_loop_its_turns() -> None:
    """After each slice."""
    backends = [f"10.0.0.1:{port}" for port in range(1, 4 * SLICE + 1)]
    finding = asyncio.ensure_future(find_loops([served("web", "127.0.0.1:80", *backends)], {}, MACHINE))
    turns = 0
    while not finding.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= len(backends) // SLICE
