"""A filter that keeps new clients out of a listening socket."""

from __future__ import annotations

import socket

import pytest

from dataplane.net import syn_filter
from dataplane.net.syn_filter import keep_out, let_in


@pytest.fixture
def listener():
    """A listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_who_is_in_stays_and_nobody_else_comes(listener):
    """A SYN is dropped; whoever is in the queue is accepted; and without the filter everybody comes again."""
    where = listener.getsockname()
    with socket.create_connection(where):
        keep_out(listener)
        with socket.socket() as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(where)
        listener.accept()[0].close()
        let_in(listener)
        socket.create_connection(where, timeout=10).close()


def test_a_filter_that_cannot_be_set_fails_nothing(listener, monkeypatch):
    """Where the kernel has no room for one, a change or an end goes on without it."""
    monkeypatch.setattr(syn_filter, "SO_ATTACH_FILTER", 9999)  # an option that no kernel has
    keep_out(listener)
    socket.create_connection(listener.getsockname(), timeout=10).close()


def test_there_may_be_nothing_to_take_off(listener):
    """Nor has a Unix socket anything to be kept out of."""
    let_in(listener)
    with socket.socket(socket.AF_UNIX) as sock:
        keep_out(sock)
