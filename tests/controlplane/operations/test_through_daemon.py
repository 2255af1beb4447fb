"""Commands through the daemon: what it is asked, and what its refusals are to whoever gave the command."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from controlplane.desired.document import Proposal
from controlplane.errors import HeldBackError, InputError, LateError, RefusedError, UnknownError
from controlplane.operations.options import ApplyOptions, options_of_query
from controlplane.operations.through_daemon import Remote

CAREFUL = ApplyOptions(timeout_s=2.5, max_remap=0.125, force=True)
PROPOSAL = Proposal.of_document({"version": 1, "services": {}}, "test", Path())


class Daemon:
    """Stands for the client of one: what it is asked is written down."""

    def __init__(self, answer=None):
        self._answer = answer if answer is not None else {"converged": True}
        self.asked = None
        self.timeout_s = None

    def ask(self, call, *, timeout_s):
        """Answer, or raise the answer."""
        self.asked, self.timeout_s = call, timeout_s
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("command", "path", "body"),
    [
        (lambda way: way.plan(PROPOSAL, CAREFUL), "/v1/plan", PROPOSAL.document),
        (lambda way: way.apply(PROPOSAL, CAREFUL), "/v1/apply", PROPOSAL.document),
        (lambda way: way.rollback(7, CAREFUL), "/v1/rollback", {"generation": 7}),
        (lambda way: way.rollback(None, CAREFUL), "/v1/rollback", {}),
    ],
)
def test_changes_take_their_options_along(command, path, body):
    """The daemon reads the same options, and has more time than it was given, to say that it had too little."""
    daemon = Daemon()
    assert command(Remote(daemon)) == {"converged": True}
    target = urlsplit(daemon.asked.target)
    assert (daemon.asked.method, target.path, json.loads(daemon.asked.body)) == ("POST", path, body)
    assert options_of_query(dict(parse_qsl(target.query))) == CAREFUL
    assert daemon.timeout_s > CAREFUL.timeout_s


@pytest.mark.parametrize("what", ["status", "snapshot", "history"])
def test_looks_change_nothing(what):
    """Each is one question, and its answer comes as it is."""
    daemon = Daemon({"what": what})
    assert getattr(Remote(daemon), what)() == {"what": what}
    assert (daemon.asked.method, daemon.asked.target, daemon.asked.body) == ("GET", f"/v1/{what}", None)


def test_a_word_about_one_backend():
    """It names the backend, whatever is in its id, and the fields."""
    daemon = Daemon()
    Remote(daemon).patch("web", "n1/s1", {"weight": 3})
    assert (daemon.asked.method, daemon.asked.target) == ("PATCH", "/v1/services/web/backends/n1%2Fs1")
    assert json.loads(daemon.asked.body) == {"weight": 3}


PROBLEMS = [{"path": "services.web", "message": "no"}]


@pytest.mark.parametrize(
    ("status", "details", "kind", "said", "code"),
    [
        (422, PROBLEMS, InputError, "services.web: no", 2),
        (422, [], HeldBackError, "its words", 1),
        (404, [], UnknownError, "its words", 1),
        (409, [], HeldBackError, "its words", 1),
        (500, [], HeldBackError, "its words", 1),
    ],
)
def test_refusals_are_those_of_a_command_without_a_daemon(status, details, kind, said, code):
    """Problems with their places, what is unknown, what stands in the way: in the daemon's words, without its name."""
    refusal = RefusedError("the daemon", status, {"code": "x", "message": "its words", "details": details})
    with pytest.raises(kind) as caught:
        Remote(Daemon(refusal)).apply(PROPOSAL, CAREFUL)
    assert (type(caught.value), str(caught.value), caught.value.exit_code) == (kind, said, code)


def test_a_daemon_that_does_not_answer_is_said():
    """That is no refusal: nothing is known of the change."""
    with pytest.raises(LateError):
        Remote(Daemon(LateError("the daemon", 1.0))).apply(PROPOSAL, CAREFUL)
