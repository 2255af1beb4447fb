"""Addresses on interfaces: renewed where they belong, removed elsewhere, and gone by themselves when nobody renews them."""

from __future__ import annotations

import os
import signal
import subprocess

from controlplane.announcing.interface import Addresses, ip_command, keep
from controlplane.core.announcement import Call, prefix
from controlplane.core.drain import Drain, Phase
from controlplane.core.readiness import readiness
from tests.support.namespaces import Network, needs_namespaces
from tests.support.wait import wait_for

TWO = {Call.PREFERRED: "lb0", Call.LOWERED: "lb1"}
ONE = dict.fromkeys((Call.PREFERRED, Call.LOWERED), "lb0")


class Ip:
    """Stands for the command `ip`: what it was told, and what it complains of."""

    def __init__(self):
        self.told, self.complaint = [], ""

    def __call__(self, words):
        """Take note."""
        self.told.append(" ".join(words))
        return self.complaint

    def take(self):
        """Return what it was told since the last time."""
        told, self.told = self.told, []
        return told


RENEWED = "-4 address replace 203.0.113.10/32 dev {} valid_lft 6 preferred_lft 6"
REMOVED = "-4 address del 203.0.113.10/32 dev {}"


def test_where_they_are():
    """Added where they belong before they are removed elsewhere; then only renewed; not ready: nowhere."""
    ip = Ip()
    addresses = Addresses([prefix("203.0.113.10")], TWO, 5.2, ip)
    for call, said in [
        (Call.PREFERRED, [RENEWED.format("lb0"), REMOVED.format("lb1")]),
        (Call.PREFERRED, [RENEWED.format("lb0")]),
        (Call.LOWERED, [RENEWED.format("lb1"), REMOVED.format("lb0")]),
        (Call.WITHDRAWN, [REMOVED.format("lb0"), REMOVED.format("lb1")]),
        (Call.WITHDRAWN, []),
    ]:
        assert addresses.put(call) == []
        assert ip.take() == said


def test_one_interface_for_both():
    """Without another one a lowered node is announced as ever."""
    ip = Ip()
    addresses = Addresses([prefix("2001:db8::10")], ONE, 6, ip)
    addresses.put(Call.PREFERRED)
    addresses.put(Call.LOWERED)
    assert ip.take() == ["-6 address replace 2001:db8::10/128 dev lb0 valid_lft 6 preferred_lft 6 nodad"] * 2


def test_what_fails_is_said_and_tried_again():
    """What could not be added is told; the next round removes again what may be in the wrong place."""
    ip = Ip()
    addresses = Addresses([prefix("203.0.113.10")], TWO, 6, ip)
    ip.complaint = "Cannot find device"
    assert addresses.put(Call.PREFERRED) == ["203.0.113.10/32 on lb0: Cannot find device"]
    ip.complaint = ""
    ip.take()
    addresses.put(Call.PREFERRED)
    assert ip.take() == [RENEWED.format("lb0"), REMOVED.format("lb1")]


def test_it_ends_with_a_withdrawal(monkeypatch):
    """Told to end it removes what is there; each change was told once."""
    ip, told, rounds = Ip(), [], iter([{"a": None}, {"a": "late"}, {"a": "late"}, {"a": None}])

    def ask():
        try:
            return readiness(next(rounds), Drain(Phase.ENABLED))
        except StopIteration:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal did not arrive") from None

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        keep(Addresses([prefix("203.0.113.10")], TWO, 6, ip), ask, told.append, 0.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert told == ["preferred", "withdrawn (data_plane: a: late)", "preferred", "ended, and withdrawn"]
    assert ip.told[-2:] == [REMOVED.format("lb0"), REMOVED.format("lb1")]


@needs_namespaces
def test_the_kernel_removes_what_nobody_renews():
    """For both versions of IP; the same address elsewhere stays."""
    with Network() as network:
        run = ip_command()
        prefixes = [prefix("203.0.113.10"), prefix("2001:db8::10")]
        network.ip("address", "add", "203.0.113.10/32", "dev", "lo")
        with network.entered():  # children begin in this thread's network
            assert run(["address", "show", "dev", "nowhere"]) != ""
            interfaces = {Call.PREFERRED: "v0", Call.LOWERED: "v1"}
            assert Addresses(prefixes, interfaces, 1, run).put(Call.PREFERRED) == []

        def there(interface):
            return subprocess.run(
                network.within(["ip", "address", "show", "dev", interface]),
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        assert "203.0.113.10/32" in there("v0")
        assert "2001:db8::10/128" in there("v0")
        wait_for(lambda: "203.0.113.10" not in there("v0"), "the address to go")
        wait_for(lambda: "2001:db8::10" not in there("v0"), "the other one, too")
        assert "203.0.113.10/32" in there("lo")


def test_the_interface_is_not_there():
    """`ip` says so, and that is what is told."""
    failed = Addresses([prefix("203.0.113.10")], {Call.PREFERRED: "nowhere0"}, 6, ip_command()).put(
        Call.PREFERRED
    )
    assert len(failed) == 1
    assert "nowhere0" in failed[0]
