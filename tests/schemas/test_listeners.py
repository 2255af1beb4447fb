"""Listeners: an address, or a mapping with options, and one normal form."""

from __future__ import annotations

import pytest

from schemas.desired import load_desired
from schemas.errors import InvalidDocument
from schemas.snapshot import digest, parse_snapshot


def service(listen):
    """Check a service that listens so."""
    body = {"generation": 1, "services": {"web": {"listen": listen, "backends": ["10.0.0.1:1"]}}}
    return parse_snapshot(body).services["web"]


@pytest.mark.parametrize(
    ("listen", "normal", "addresses"),
    [
        (":80", [":80"], ["0.0.0.0:80"]),
        ({"address": ":80"}, [":80"], ["0.0.0.0:80"]),
        ({"unix": "/run/a.sock"}, ["unix:/run/a.sock"], ["unix:/run/a.sock"]),
        (
            {"unix": "/run/a.sock", "mode": "660", "owner": "root", "group": "33"},
            [{"address": "unix:/run/a.sock", "mode": "0660", "owner": "root", "group": "33"}],
            ["unix:/run/a.sock"],
        ),
        (
            [{"address": "[::]:443", "dual_stack": True}, "127.0.0.1:80"],
            [{"address": "[::]:443", "dual_stack": True}, "127.0.0.1:80"],
            ["[::]:443", "0.0.0.0:443", "127.0.0.1:80"],
        ),
        (
            {"address": "192.0.2.1:80", "freebind": True, "dual_stack": False},
            [{"address": "192.0.2.1:80", "freebind": True}],
            ["192.0.2.1:80"],
        ),
    ],
)
def test_one_normal_form(listen, normal, addresses):
    """Every form with the same meaning is written in one way, and so has one hash; what is written is read as the same."""
    checked = service(listen)
    written = checked.model_dump(mode="json")["listen"]
    assert written == [one.replace(":80", "0.0.0.0:80") if one == ":80" else one for one in normal]
    assert list(checked.addresses) == addresses
    assert service(written) == checked
    assert digest({"web": service(written)}) == digest({"web": checked})


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        (
            "{address: '10.0.0.1:443', dual_stack: true}",
            'line 4, column 51: services.web.listen.dual_stack: is for "[::]:443" alone',
        ),
        (
            "{unix: /a, freebind: true}",
            "line 4, column 34: services.web.listen.freebind: only a TCP address has it",
        ),
        (
            "{address: ':80', mode: '0660'}",
            "line 4, column 36: services.web.listen.mode: only a Unix socket has it",
        ),
        (
            "{unix: /a, mode: '0888'}",
            "line 4, column 30: services.web.listen.mode: must be permissions in octal digits",
        ),
        ("{unix: /a, mode: '4660'}", "must be permissions in octal digits"),
        (
            "{unix: /a, moed: '0660'}",
            "line 4, column 24: services.web.listen.moed: unknown key; did you mean mode?",
        ),
        ("{unix: /a, address: ':1'}", "services.web.listen.unix: excludes address"),
        ("{unix: a}", "must have an absolute path"),
        ("{}", "services.web.listen.address: is required"),
        ("[':1', {address: 7}]", "line 4, column 30: services.web.listen[1].address: must be an address"),
        (
            "[{address: '[::]:443', dual_stack: true}, '0.0.0.0:443']",
            "line 4, column 55: services.web.listen[1]: 0.0.0.0:443 is already taken by services.web.listen[0]",
        ),
        (
            "['0.0.0.0:443', {address: '[::]:443', dual_stack: true}]",
            "services.web.listen[1]: [::]:443 takes IPv4 as well, and 0.0.0.0:443 is already taken by services.web.listen[0]",
        ),
    ],
)
def test_what_does_not_fit(listen, problem):
    """Options are for the addresses that can have them, and two listeners do not overlap; the place is where it is written."""
    with pytest.raises(InvalidDocument) as caught:
        load_desired(f"version: 1\nservices:\n  web:\n    listen: {listen}\n    backends: [a:1]\n".encode())
    (found,) = caught.value.problems
    assert problem in str(found)


def test_a_backend_behind_both_families():
    """A listener for both families is one for loopback addresses of both: none of them may be its backend."""
    with pytest.raises(InvalidDocument) as caught:
        parse_snapshot(
            {
                "generation": 1,
                "services": {
                    "web": {
                        "listen": {"address": "[::]:443", "dual_stack": True},
                        "backends": ["127.0.0.1:443", "[::1]:443", "[::1]:444"],
                    }
                },
            }
        )
    assert [one.path for one in caught.value.problems] == [
        "services.web.backends[0]",
        "services.web.backends[1]",
    ]
