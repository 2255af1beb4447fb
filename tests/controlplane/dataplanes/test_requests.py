"""Who we are, in a header that every data plane takes; and ids in a path."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.dataplanes.requests import patch_backend, pushed_by, said_by
from schemas.api import parse_pushed_by


def test_what_a_push_says_is_what_is_read():
    """Program, machine, pid, user and file."""
    read = parse_pushed_by(pushed_by("lb-control run", "anna", "/etc/lb.yaml"))
    assert (read.program, read.pid, read.user, read.source) == (
        "lb-control run",
        os.getpid(),
        "anna",
        "/etc/lb.yaml",
    )
    assert said_by(read.model_dump()) == str(read)
    assert parse_pushed_by(pushed_by("lb-control", "anna")).source is None
    assert said_by(None) == "somebody who does not say who it is"


@settings(deadline=None)
@given(st.text(), st.text())
@pytest.mark.parametrize("more", ["", "x" * 5000, "\udcff\n\x00"])
def test_no_name_gets_a_push_refused(more, user, source):
    """However long, and whatever is in it: it is a courtesy."""
    header = pushed_by("lb-control run", user + more, source + more)
    assert header.isascii()
    assert header.isprintable()
    assert len(json.loads(header)["source"]) <= 255
    parse_pushed_by(header)


def test_backend_ids_are_one_step_of_the_path():
    """An id with slashes or other signs stays one id."""
    call = patch_backend("web", "node/10 %?#", {"weight": 3})
    assert call.target == "/v1/services/web/backends/node%2F10%20%25%3F%23"
    assert call.body == b'{"weight":3}'
