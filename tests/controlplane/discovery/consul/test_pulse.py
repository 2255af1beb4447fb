"""An agent that hangs is known within ten seconds, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.discovery.consul.client import Reply
from controlplane.discovery.consul.pulse import Pulse, is_silence
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.watch import Pace, Runtime

SOON_S = 10.0
ANSWER = Reply(200, {}, b'"127.0.0.1:8300"')


class Agent:
    """An agent on virtual time, frozen from one time to another; the clock stops at `end`.

    Args:
        frozen_at: When it stops answering.
        thawed_at: When it answers again.
        end: When to stop looking.
        luck: What chance says.
    """

    def __init__(self, frozen_at=1e9, thawed_at=1e9, end=60.0, luck=0.0):
        self.now = 0.0
        self.frozen_at, self.thawed_at, self.end = frozen_at, thawed_at, end
        self.asked = []
        self.noticed = []
        self.error = None
        self.runtime = Runtime(
            clock=lambda: self.now, wall=lambda: self.now, random=lambda: luck, sleep=self.sleep
        )
        self.pulse = Pulse(self.note, pace=Pace(), runtime=self.runtime)

    def note(self):
        """Write down what is said, and when."""
        self.noticed.append((self.now, self.pulse.since))

    async def sleep(self, seconds):
        """Let time pass."""
        assert seconds > 0
        self.now += seconds
        if self.now >= self.end:
            raise asyncio.CancelledError

    async def get(self, path, params=(), *, timeout_s):
        """Answer like an agent that is stopped, or that has an error to tell."""
        self.asked.append((path, params))
        if self.frozen_at <= self.now < self.thawed_at:
            if self.now + timeout_s < self.thawed_at:
                self.now += timeout_s
                raise ConsulError("timeout", "no answer within 2.5 s")
            self.now = self.thawed_at
        if self.error is not None:
            raise self.error
        return ANSWER

    async def live(self):
        """Run the pulse until the end."""
        with pytest.raises(asyncio.CancelledError):
            await self.pulse.run(self)
        return self.noticed


@settings(deadline=None)
@given(frozen_at=st.floats(0.0, 30.0), for_s=st.floats(12.0, 100.0), luck=st.floats(0.0, 0.999))
def test_known_within_ten_seconds(frozen_at, for_s, luck):
    """Whenever it freezes, that is noticed within 10 s, with the time of its last answer; and so is its return."""
    thawed_at = frozen_at + for_s
    agent = Agent(frozen_at, thawed_at, end=thawed_at + SOON_S, luck=luck)
    (silent_at, since), (back_at, nothing) = asyncio.run(agent.live())
    assert frozen_at <= silent_at <= frozen_at + SOON_S
    assert since <= frozen_at
    assert frozen_at - since <= Pace().pulse_s
    assert thawed_at <= back_at <= thawed_at + SOON_S
    assert nothing is None
    assert agent.pulse.error is None


async def test_one_missing_answer_is_no_silence():
    """An agent that looks for another server for two seconds has answered in time to be believed alive."""
    assert await Agent(frozen_at=6.0, thawed_at=9.0).live() == []


async def test_every_answer_is_a_sign_of_life():
    """What is wrong with an answer is not its affair: the watches meet the same."""
    for kind in ("failed", "denied", "overloaded", "misconfigured", "protocol"):
        agent = Agent()
        agent.error = ConsulError(kind, "status 500: No cluster leader")
        assert await agent.live() == []


async def test_refused_is_as_silent():
    """An agent that nothing listens for is as silent as one that hangs, and asked no more often."""
    agent = Agent()
    agent.error = ConsulError("unreachable", "Connection refused")
    assert await agent.live() == [(3.5, 0.0)]
    assert str(agent.pulse.error).startswith("unreachable: Connection refused, asked again")
    assert len(agent.asked) <= 21


async def test_what_is_asked():
    """It is the leader's address that is asked for, in the datacenter of the watches."""
    agent = Agent(end=4.0)
    await agent.live()
    agent.pulse = Pulse(agent.note, pace=Pace(), runtime=agent.runtime, datacenter="dc2")
    agent.now = 0.0
    await agent.live()
    assert agent.asked == [("/v1/status/leader", []), ("/v1/status/leader", [("dc", "dc2")])]


async def test_a_new_run_knows_nothing():
    """Of another agent nothing is known: the silence of the one before is over."""
    agent = Agent(frozen_at=0.0, end=20.0)
    await agent.live()
    assert agent.pulse.error is not None
    agent.frozen_at, agent.now = 1e9, 0.0
    await agent.live()
    assert agent.pulse.since is None
    assert agent.noticed[-1] == (0.0, None)


def test_what_silence_is():
    """No answer at all is silence; none being missing is not."""
    assert is_silence(ConsulError("timeout", ""))
    assert is_silence(ConsulError("unreachable", ""))
    assert not is_silence(ConsulError("failed", ""))
    assert not is_silence(None)
