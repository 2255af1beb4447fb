"""When backends are checked, against real sockets and both event loops."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.core.spec import ActiveCheckSpec, CheckType, ProxySend
from dataplane.net.prober import Prober, Target, delay_s
from tests.support.checked import backend, saying
from tests.support.loops import on_both_loops

HOUR_S = 3600.0
TCP = ActiveCheckSpec(
    type=CheckType.TCP,
    interval_s=HOUR_S,
    timeout_s=10.0,
    rise=2,
    fall=3,
    jitter=0.1,
    port=None,
    http_path="/",
    http_status=((200, 200),),
    http_host="",
    expect_send=b"",
    expect_expect=b"",
    expect_quit=b"",
)
OFTEN = replace(TCP, interval_s=0.01)
PING = replace(TCP, type=CheckType.EXPECT, expect_send=b"PING\r\n", expect_expect=b"+PONG")


def target(backend_id, address, check=TCP):
    """Return a target of the one service."""
    return Target("web", backend_id, address, check, ProxySend.OFF)


class Probing:
    """A running prober and what it has reported."""

    def __init__(self, **options):
        self.results = asyncio.Queue()
        self.local_errors = asyncio.Queue()
        self.prober = Prober(
            lambda target, found: self.results.put_nowait((target.backend_id, found.ok, found.cause)),
            **{"on_local_error": self.local_errors.put_nowait, "random": lambda: 0.5} | options,
        )

    def end(self, running):
        """Let nobody wait for a prober that has crashed."""
        self.results.put_nowait(("the prober has ended", False, repr(running)))
        self.local_errors.put_nowait("the prober has ended")

    async def next(self):
        """Return the id of the next backend with a verdict, whether it passed, and the cause."""
        return await self.results.get()

    async def ids(self, count):
        """Return the ids of the next backends with a verdict, in order."""
        return [(await self.next())[0] for _ in range(count)]


@asynccontextmanager
async def probing(*targets, **options):
    """Run a prober; afterwards it is cancelled, and no task may be left."""
    others = asyncio.all_tasks()
    it = Probing(**options)
    it.prober.update(targets)
    running = asyncio.create_task(it.prober.run())
    running.add_done_callback(it.end)
    try:
        yield it
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - others}
    assert not {name for name in names if "Prober" in name}


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestProber:
    """The schedule."""

    async def test_verdicts(self):
        """Each target is probed at once, and its verdict reported with its cause."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            refusing = f"127.0.0.1:{bound.getsockname()[1]}"
            async with backend() as it, probing(target("a", it.address), target("b", refusing)) as probes:
                verdicts = {await probes.next(), await probes.next()}
        assert verdicts == {("a", True, "ok"), ("b", False, "connection refused")}

    async def test_probes_repeat(self):
        """A target is probed again after its interval, whatever was found."""
        async with backend() as it, probing(target("a", it.address, OFTEN)) as probes:
            assert await probes.ids(4) == ["a"] * 4

    async def test_unchanged_target_keeps_its_schedule(self):
        """An update probes what is new or changed, and nobody else."""
        async with backend() as it, backend() as other:
            before = [target(name, it.address) for name in "abc"]
            async with probing(*before, concurrency=1) as probes:
                assert await probes.ids(3) == ["a", "b", "c"]
                due = {entry.target.backend_id: due for due, _, entry in probes.prober._heap}
                # with one place they are probed in turn, so one that was wrongly due would show up
                after = [
                    before[0],
                    target("b", other.address),
                    target("c", it.address, OFTEN),
                    target("d", it.address),
                ]
                probes.prober.update(after)
                assert await probes.ids(3) == ["b", "c", "d"]
                assert other.accepted == 1
                now_due = {entry.target.backend_id: due for due, _, entry in probes.prober._heap}
                assert now_due["a"] == due["a"]

    async def test_removed_target_is_left_alone(self):
        """Once removed, a target is neither probed nor reported."""
        async with (
            backend() as it,
            probing(target("a", it.address, OFTEN), target("b", it.address, OFTEN)) as probes,
        ):
            await probes.ids(4)
            probes.prober.update([target("b", it.address, OFTEN)])
            while not probes.results.empty():
                probes.results.get_nowait()
            assert await probes.ids(5) == ["b"] * 5
            assert {entry.target.backend_id for _, _, entry in probes.prober._heap} <= {"b"}

    async def test_probe_of_a_removed_target_is_broken_off(self):
        """A verdict that is open when its target is removed never comes, and its place is free again."""
        reached = asyncio.Event()

        async def behave(reader, writer, seen):
            seen += await reader.read(65536)
            reached.set()

        async with (
            backend(behave) as silent,
            backend() as it,
            probing(target("a", silent.address, PING), concurrency=1) as probes,
        ):
            await reached.wait()
            probes.prober.update([target("b", it.address)])
            assert await silent.ends.get() == ("fin", b"PING\r\n")
            assert await probes.next() == ("b", True, "ok")
            assert probes.results.empty()

    async def test_target_that_goes_before_its_probe_began(self):
        """A probe that is broken off before its first step gives its place back too."""
        async with backend() as it, probing(target("z", it.address), concurrency=1) as probes:
            assert await probes.ids(1) == ["z"]
            for name in "abc":
                probes.prober.update([target(name, it.address)])
                await asyncio.sleep(0)  # the prober starts the probe, which has not run yet
                probes.prober.update([])
            probes.prober.update([target("d", it.address)])
            while (await probes.next())[0] != "d":
                pass
            assert probes.prober._busy == 0

    async def test_check_of_type_none(self):
        """What is not to be checked is not."""
        off = replace(TCP, type=CheckType.NONE)
        async with (
            backend() as it,
            backend() as unchecked,
            probing(target("off", unchecked.address, off), target("a", it.address)) as probes,
        ):
            assert await probes.ids(1) == ["a"]
            assert not probes.prober._heap[1:]
            assert unchecked.accepted == 0

    async def test_slow_probe_is_not_started_twice(self):
        """While a probe lasts longer than its interval, there is one of it."""
        slow = replace(PING, interval_s=0.001, timeout_s=0.02)
        async with backend() as it, probing(target("a", it.address, slow)) as probes:
            for finished in range(1, 6):
                assert (await probes.next())[:2] == ("a", False)
                assert it.accepted <= finished

    async def test_concurrency_is_bounded(self):
        """No more verdicts are open at once than allowed, and everybody gets one in the end."""
        waiting, most, go = 0, 0, asyncio.Event()
        three = asyncio.Event()

        async def behave(reader, writer, seen):
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            if waiting == 3:
                three.set()
            await go.wait()
            waiting -= 1
            await saying(b"+PONG", after=b"PING\r\n")(reader, writer, seen)

        async with backend(behave) as it:
            targets = [target(str(number), it.address, PING) for number in range(20)]
            async with probing(*targets, concurrency=3) as probes:
                await three.wait()
                assert (probes.prober._busy, len(probes.prober._heap)) == (3, 17)
                go.set()
                assert sorted(await probes.ids(20)) == sorted(str(number) for number in range(20))
                assert most == 3

    async def test_backends_that_do_not_close_hold_nobody_up(self):
        """Connections that are only being closed take no places from probes, and are bounded themselves."""
        stay = asyncio.Event()

        async def behave(reader, writer, seen):
            await stay.wait()

        async with backend(behave) as it:
            targets = [target(str(number), it.address) for number in range(8)]
            async with probing(*targets, concurrency=2) as probes:
                assert len(await probes.ids(8)) == 8
                assert probes.prober._leaving == 2
                stay.set()
                assert [(await it.ends.get())[0] for _ in range(8)] == ["fin"] * 8

    async def test_phases_are_spread(self):
        """After the first probe, the random source tells when in the interval the next one is."""
        shares = [number / 10 for number in range(1, 10)]
        samples = iter(shares)
        async with backend() as it:
            targets = [target(str(share), it.address) for share in shares]
            began = asyncio.get_running_loop().time()
            async with probing(*targets, random=lambda: next(samples)) as probes:
                await probes.ids(9)
                ended = asyncio.get_running_loop().time()
                due = sorted(due for due, _, _ in probes.prober._heap)
                for at, share in zip(due, shares, strict=True):
                    assert began - 1e-6 <= at - share * HOUR_S <= ended + 1e-6  # they are floats

    async def test_callback_may_update(self):
        """The set of targets may be changed from within a verdict."""
        async with backend() as it:
            done = asyncio.Event()
            verdicts = Counter()

            def on_result(which, outcome):
                verdicts[which.backend_id] += 1
                prober.update([target("b", it.address)])
                if which.backend_id == "b":
                    done.set()

            prober = Prober(on_result, on_local_error=print, random=lambda: 0.5)
            prober.update([target("a", it.address)])
            running = asyncio.create_task(prober.run())
            await done.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert verdicts == {"a": 1, "b": 1}

    async def test_cancellation_ends_what_is_open(self):
        """Cancelling the prober closes connections whose verdict is open and those that are being left."""
        stay, both = asyncio.Event(), asyncio.Event()
        begun = 0

        async def behave(reader, writer, seen):
            nonlocal begun
            begun += 1
            if begun == 2:
                both.set()
            await stay.wait()

        async with backend(behave) as it:
            async with probing(target("a", it.address), target("b", it.address, PING)) as probes:
                assert await probes.ids(1) == ["a"]
                await both.wait()
            stay.set()
            assert sorted([await it.ends.get(), await it.ends.get()]) == [("fin", b""), ("fin", b"PING\r\n")]

    async def test_local_error_is_no_verdict(self):
        """Out of descriptors, nobody is judged; it is said, and the target is tried again."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with backend() as it, probing() as probes:
            await asyncio.sleep(0)  # the prober waits
            probes.prober.update([target("a", it.address, OFTEN)])
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # those that are open stay
            try:
                cause = await probes.local_errors.get()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert cause == "EMFILE"
            assert await probes.next() == ("a", True, "ok")


@given(sample=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1), interval_s=st.floats(0.01, 1000))
def test_delay(sample, jitter, interval_s):
    """The first delay is a share of the interval; later ones differ from the interval by `jitter` at most."""
    check = replace(TCP, interval_s=interval_s, jitter=jitter)
    assert 0 <= delay_s(check, sample, first=True) <= interval_s
    later = delay_s(check, sample, first=False)
    assert interval_s * (1 - jitter) <= later * (1 + 1e-12)
    assert later <= interval_s * (1 + jitter) * (1 + 1e-12)
    assert delay_s(check, 0.5, first=False) == pytest.approx(interval_s)


async def test_a_bug_that_one_check_meets_ends_no_other():
    """It is told, with the backend that it met, and that one is checked again as well."""
    told = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.put_nowait(context))
    results = asyncio.Queue()

    def take(target, found):
        if target.backend_id == "bad":
            raise ZeroDivisionError("of ours")
        results.put_nowait(target.backend_id)

    prober = Prober(take, on_local_error=lambda _: None, random=lambda: 0.5)
    async with backend() as it, asyncio.TaskGroup() as group:
        running = group.create_task(prober.run())
        prober.update([target("bad", it.address, OFTEN), target("good", it.address, OFTEN)])
        for _ in range(3):
            context = await told.get()
            assert "backend bad of service web" in context["message"]
            assert isinstance(context["exception"], ZeroDivisionError)
            assert await results.get() == "good"
        running.cancel()


async def test_it_can_be_run_again_after_a_failure(monkeypatch):
    """Whatever was being checked then is due at once, and everything is checked as before."""
    results = asyncio.Queue()
    prober = Prober(
        lambda target, _: results.put_nowait(target.backend_id),
        on_local_error=lambda _: None,
        random=lambda: 0.5,
        concurrency=1,
    )
    sound = prober._start_due
    async with backend() as it:
        prober.update([target("a", it.address, OFTEN), target("b", it.address, OFTEN)])

        def broken(group, now):
            sound(group, now)  # one is being checked now
            raise ZeroDivisionError("of ours")

        monkeypatch.setattr(Prober, "_start_due", lambda self, group, now: broken(group, now))
        with pytest.raises(ExceptionGroup):
            await prober.run()
        monkeypatch.undo()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(prober.run())
            seen = {await results.get() for _ in range(4)}
            running.cancel()
    assert seen == {"a", "b"}
