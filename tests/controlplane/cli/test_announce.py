"""What `announce` makes of its options."""

from __future__ import annotations

import subprocess
import sys

import pytest

from controlplane.announcing import exabgp, interface
from controlplane.cli.announce import announce
from controlplane.core.announcement import Call
from controlplane.core.readiness import Reason
from controlplane.errors import InputError
from tests.controlplane.cli.given import Given, run

PREFIX = ("--prefix", "203.0.113.10")


@pytest.fixture
def made(monkeypatch):
    """What is made, and run with what: nothing is announced."""
    made = []

    class Announcer:
        def __init__(self, *arguments):
            made.append(arguments)

        def run(self, *times):
            made.append(times)
            return 7

    monkeypatch.setattr(exabgp, "Announcer", Announcer)
    monkeypatch.setattr(interface, "keep", lambda *arguments: made.append(arguments))
    monkeypatch.setattr(interface, "ip_command", lambda: "ip")
    monkeypatch.setattr(interface, "Addresses", lambda *arguments: arguments)
    return made


def test_for_exabgp(made):
    """Routes with everything that was given; its end is the command's."""
    more = ("--prefix", "2001:db8::10", "--med", "5", "--med-lowered", "9", "--community", "64512:1")
    result = run(announce, Given(a={}), *PREFIX, *more, "--next-hop", "192.0.2.1", "--hold", "9s")
    assert result.exit_code == 7
    (routes, ask, _), times = made
    assert routes.commands(Call.LOWERED) == [
        "announce route 203.0.113.10/32 next-hop 192.0.2.1 med 9 community [ 64512:1 ]",
        "announce route 2001:db8::10/128 next-hop 192.0.2.1 med 9 community [ 64512:1 ]",
    ]
    assert "med 5 " in routes.commands(Call.PREFERRED)[0]
    assert times == (1.0, 9.0)
    assert ask().ready


@pytest.mark.parametrize(("options", "lowered"), [((), "lb0"), (("--interface-lowered", "lb1"), "lb1")])
def test_for_an_interface(made, options, lowered):
    """The addresses, where they belong by what is announced, and how long they live."""
    assert run(announce, Given(a={}), *PREFIX, "--interface", "lb0", *options).exit_code == 0
    ((addresses, ask, _, interval),) = made
    prefixes, interfaces, hold, ip = addresses
    assert [str(each) for each in prefixes] == ["203.0.113.10/32"]
    assert interfaces == {Call.PREFERRED: "lb0", Call.LOWERED: lowered}
    assert (hold, ip, interval) == (6.0, "ip", 1.0)
    assert ask().ready


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--prefix"),
        (("--prefix", "203.0.113.10/24"), "must be an address or a network"),
        ((*PREFIX, "--hold", "3s"), "--hold must be"),
        ((*PREFIX, "--interface-lowered", "lb1"), "needs --interface"),
        ((*PREFIX, "--community", "nobody"), "must be two numbers"),
        ((*PREFIX, "--med", "-1"), "-1 is not in the range"),
    ],
)
def test_what_is_refused(made, options, said):
    """2, with the option and what it has to be; nothing is announced."""
    result = run(announce, Given(a={}), *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert made == []


def test_what_cannot_be_asked_is_not_ready(made):
    """A token's file that is away for a moment ends nothing: it is a reason."""
    given = Given(a={})
    run(announce, given, *PREFIX)
    (_, ask, _), _ = made

    def broken():
        raise InputError("--token-file x", [{"path": "", "message": "no such file"}])

    given.clients = broken
    assert [reason for reason, _ in ask().why] == [Reason.UNKNOWN]
    assert "no such file" in ask().reason


@pytest.mark.parametrize(("number", "name"), [(0, "input"), (1, "output")])
def test_without_exabgp_s_pipes_nothing_begins(number, name):
    """Else the next socket that is opened would be taken for one."""
    code = f"import os, sys; os.close({number}); from controlplane.cli import main; main()"
    argv = [sys.executable, "-c", code, "announce", *PREFIX]
    ended = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert ended.returncode == 2
    assert f"standard {name} is closed: ExaBGP starts this command" in ended.stderr
