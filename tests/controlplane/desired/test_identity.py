"""What a node's variables are: the environment first, then its agent, which is asked once, then what that said before."""

from __future__ import annotations

import asyncio

from controlplane.desired.identity import Identity
from controlplane.errors import StoreError
from controlplane.store import Store
from schemas.variables import Known
from tests.support.fakeconsul import FakeConsul
from tests.support.ports import HeldPort

BOTH = frozenset({"NODE_NAME", "NODE_IP"})


def agent(consul):
    """Return what an lb.yaml says of an agent."""
    return {"address": consul.address}


async def ask(identity, names, consul):
    """Look, as a daemon does: in a thread."""
    return await asyncio.to_thread(identity, frozenset(names), consul)


async def test_the_environment_comes_first(tmp_path):
    """The agent is not asked for what it has, nor for names that no agent knows."""
    async with FakeConsul() as consul:
        identity = Identity({"NODE_NAME": "x", "NODE_IP": "10.0.0.9", "HOME": "/"}, Store(tmp_path))
        found = await ask(identity, {"NODE_NAME", "NODE_RACK"}, agent(consul))
        assert found.known == {
            "NODE_NAME": Known("x", "the environment"),
            "NODE_IP": Known("10.0.0.9", "the environment"),
        }
        assert found.unknown == {"NODE_RACK": "it is not set in the environment, or empty there"}
        assert not found.passing
        assert consul.asked == []


async def test_the_agent_is_asked_once_for_what_the_environment_has_not(tmp_path):
    """A node does not change its name while it runs."""
    async with FakeConsul(node=("lb-1", "10.0.0.7")) as consul:
        identity = Identity({"NODE_NAME": "x"}, Store(tmp_path))
        for _ in range(2):
            found = await ask(identity, {"NODE_IP"}, agent(consul))
            source = f"the Consul agent at {consul.address}"
            assert found.known == {
                "NODE_NAME": Known("x", "the environment"),
                "NODE_IP": Known("10.0.0.7", source),
            }
        assert len(consul.asked) == 1
        everything = await asyncio.to_thread(identity.everything, agent(consul))
    assert everything == {"NODE_NAME": "x", "NODE_IP": "10.0.0.7"}


async def test_the_environment_names_the_agent_if_the_file_does_not(tmp_path):
    """As for Consul's own tools."""
    async with FakeConsul() as consul:
        identity = Identity({"CONSUL_HTTP_ADDR": consul.address}, Store(tmp_path))
        assert (await ask(identity, BOTH, None)).known.keys() == BOTH


async def test_a_start_without_consul_knows_what_was_said_before(tmp_path):
    """Whoever writes keeps it; a command only reads."""
    async with FakeConsul(node=("lb-1", "10.0.0.7")) as consul:
        await ask(Identity({}, Store(tmp_path)), BOTH, agent(consul))
        assert Store(tmp_path).identity() == {}
        await ask(Identity({}, Store(tmp_path), writes=True), BOTH, agent(consul))
        where = agent(consul)
    found = await ask(Identity({}, Store(tmp_path)), BOTH, where)
    assert {name: each.value for name, each in found.known.items()} == {
        "NODE_NAME": "lb-1",
        "NODE_IP": "10.0.0.7",
    }
    assert {each.source for each in found.known.values()} == {"what the Consul agent said once"}


async def test_what_nobody_tells_may_be_known_later(tmp_path):
    """The agent is asked again with the next look, and the reason is told meanwhile."""
    with HeldPort() as port:
        identity = Identity({}, Store(tmp_path))
        found = await ask(identity, {"NODE_IP"}, {"address": f"http://{port.address}"})
        assert found.known == {}
        assert found.passing
        assert found.unknown["NODE_IP"] == (
            "it is not set in the environment, or empty there, and the Consul agent does not say it: "
            f"unreachable: http://{port.address}: Connection refused"
        )
    async with FakeConsul() as consul:
        assert "NODE_IP" in (await ask(identity, {"NODE_IP"}, agent(consul))).known


async def test_an_agent_that_does_not_know_it_is_no_reason_to_wait(tmp_path):
    """It has answered."""
    async with FakeConsul(node=("lb-1", "")) as consul:
        found = await ask(Identity({}, Store(tmp_path)), {"NODE_IP"}, agent(consul))
        assert (found.passing, found.unknown["NODE_IP"].rpartition(", and ")[2]) == (
            False,
            f"the Consul agent at {consul.address} does not say it",
        )


async def test_a_wrong_consul_section_is_not_asked(tmp_path):
    """The check of the file says what is wrong with it."""
    found = await ask(Identity({}, Store(tmp_path)), {"NODE_IP"}, {"address": 3})
    assert found.unknown["NODE_IP"].endswith("consul in this file is wrong")


async def test_a_directory_that_cannot_be_used_loses_nothing(tmp_path):
    """The agent's word counts, kept or not."""

    class Broken:
        def identity(self):
            raise StoreError("no")

        def keep_identity(self, values):
            raise StoreError("no")

    async with FakeConsul() as consul:
        assert (await ask(Identity({}, Broken(), writes=True), BOTH, agent(consul))).known.keys() == BOTH
        where = agent(consul)
    assert (await ask(Identity({}, Broken()), BOTH, where)).known == {}
