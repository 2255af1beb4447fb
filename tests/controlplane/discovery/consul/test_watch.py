"""Which questions a watch asks, one after the other: with a client that answers by a script, on virtual time."""

from __future__ import annotations

import asyncio
import json

from controlplane.discovery.consul.client import Reply
from controlplane.discovery.consul.query import Query
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.watch import Pace, Runtime, Watch, Wish

PACE = Pace(rate=1000.0)
LEADER = {"X-Consul-KnownLeader": "true", "X-Consul-LastContact": "0"}


def answer(index, *entries):
    """Return an answer with this index."""
    return Reply(200, {**LEADER, "X-Consul-Index": str(index)}, json.dumps(entries).encode())


class Play:
    """A watch that asks until the script is over."""

    def __init__(self, *script, query=None, wish=None):
        self.script = list(script)
        self.asked = []
        self.slept = []
        self.received = []
        self.now = 0.0
        self.wish = wish or Wish()
        runtime = Runtime(clock=lambda: self.now, wall=lambda: 0.0, random=lambda: 0.0, sleep=self.sleep)
        self.watch = Watch(
            query or Query(service="web"), self.receive, lambda: None, pace=PACE, runtime=runtime
        )

    async def sleep(self, seconds):
        """Let time pass."""
        self.now += seconds
        if seconds:
            self.slept.append(seconds)

    async def get(self, path, params=(), *, timeout_s):
        """Answer as the script says."""
        self.asked.append(dict(params))
        if not self.script:
            raise asyncio.CancelledError
        said = self.script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def receive(self, entries, trust, whole):
        """Take an answer."""
        self.received.append((entries, trust, whole))
        return self.wish

    async def run(self):
        """Ask to the end of the script."""
        try:
            await self.watch.run(self)
        except asyncio.CancelledError:
            return self
        raise AssertionError("the watch has ended")


async def test_the_leader_first_then_any_server_that_waits():
    """The first answer is confirmed; then each question waits for an index that is not the last one."""
    play = await Play(answer(5, 1), answer(7, 2)).run()
    assert play.asked[0] == {}
    assert [each["index"] for each in play.asked[1:]] == ["5", "7"]
    assert all("stale" in each and each["wait"] == "30000ms" for each in play.asked[1:])
    assert [entries for entries, _, _ in play.received] == [[1], [2]]
    assert [trust.confirmed for _, trust, _ in play.received] == [True, False]
    assert (play.watch.health.wakes, play.watch.health.index) == (1, 7)


async def test_an_error_forgets_the_index():
    """The next question does not wait, and goes to any server if the leader has just failed."""
    play = await Play(ConsulError("failed", "x"), answer(5), ConsulError("unreachable", "y"), answer(6)).run()
    assert play.asked[1] == {"stale": ""}
    assert play.asked[3] == {}
    assert play.watch.health.error is None
    assert play.watch.health.errors == {"failed": 1, "unreachable": 1}


async def test_what_an_operator_has_to_mend_is_asked_seldom():
    """Nothing is gained by asking again soon, unless it is said when."""
    denied, busy = ConsulError("denied", "x"), ConsulError("misconfigured", "y", retry_after_s=1.0)
    play = await Play(denied, busy).run()
    assert play.slept == [PACE.operator_s, 1.0]
    assert play.watch.health.error is busy


async def test_an_older_answer_is_dropped():
    """A server that has not caught up says less than is known; the leader is asked, whose word counts."""
    play = await Play(answer(9, 1), answer(4, 2), answer(4, 3)).run()
    assert [entries for entries, _, _ in play.received] == [[1], [3]]
    assert play.asked[2] == {}
    assert play.watch.health.resets == 1


async def test_a_confirmation_that_is_wanted_is_asked_for():
    """The leader is read as often as somebody doubts what a server says."""
    play = await Play(answer(5, 1), answer(6, 2), wish=Wish(confirm_every=1.0)).run()
    assert play.asked[1]["wait"] == "1000ms"


async def test_a_prepared_query_is_asked_at_intervals():
    """It cannot wait for a change, and its answers have no index."""
    nodes = Reply(200, LEADER, json.dumps({"Nodes": [1]}).encode())
    play = await Play(nodes, nodes, query=Query(prepared="near")).run()
    assert play.asked == [{}, {}, {}]
    assert play.slept == [PACE.poll_s, PACE.poll_s]


async def test_the_whole_service_is_asked_for_once_for_an_index():
    """Where something is missing from a part of a service, what is listed elsewhere in it has been moved."""
    entry = {"Node": {"Node": "n1"}, "Service": {"ID": "a"}}
    query = Query(service="web", tags=("x",))
    play = await Play(answer(5), answer(5, entry), query=query, wish=Wish(whole=True)).run()
    assert [whole for _, _, whole in play.received] == [None, frozenset({("n1", "a")})]
    assert "tag" not in play.asked[1]


def test_a_wish_for_all():
    """The shortest interval and any doubt count."""
    wishes = [Wish(), Wish(confirm_every=10.0), Wish(confirm_every=1.0, whole=True)]
    assert Wish.of_all(wishes) == Wish(confirm_every=1.0, whole=True)
    assert Wish.of_all([]) == Wish()
