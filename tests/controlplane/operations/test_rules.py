"""The rules of taking a change: what ends an override, whose word holds, what is refused, what a rollback returns to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controlplane.core.compile import Compiled
from controlplane.core.merge import Override
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import (
    HeldBackError,
    InputError,
    LateError,
    RefusedError,
    StoreError,
    UnknownError,
)
from controlplane.operations import rules
from controlplane.operations.options import ApplyOptions, Origin
from controlplane.store import KEPT_CHANGES, Entry, History, State, digest_of

APPLY = Origin("anna", "apply")
WHEN = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-02T00:00:00.000Z"


def services(*ids, weight=1):
    """Return one service with these backends, in its JSON form."""
    backends = [
        {"id": key, "address": f"10.0.0.{number}:1", "state": "enabled", "weight": weight}
        for number, key in enumerate(ids, 1)
    ]
    return {"web": {"listen": ["127.0.0.1:4000"], "backends": backends}}


def compiled(made, *, hash_="new", loops=()):
    """Return what some lb.yaml has come to."""
    return Compiled(made, hash_, discovered=(), waiting=(), rejected={}, loops=loops)


def drained(by="op"):
    """Return an operator's word about a backend."""
    return Override("web", "a", "state", "drain", by, WHEN)


BEFORE = State(
    generation=1, hash="old", document={"n": 1}, services=services("a", "b"), overrides=(drained(),)
)


@pytest.mark.parametrize(
    ("made", "kept"),
    [(services("a", "b", weight=5), True), (services("a"), True), (services("b"), False)],
    ids=["says the same", "another goes", "its backend goes"],
)
def test_what_is_accepted_is_the_whole_change(made, kept):
    """All that the lb.yaml says, with its generation; an override ends with what it was about, and not else."""
    after = rules.accept(BEFORE, compiled(made), {"n": 2}, 7)
    assert (after.generation, after.hash, after.document, after.services) == (7, "new", {"n": 2}, made)
    assert after.overrides == ((drained(),) if kept else ())


def test_the_watched_files_word_holds_until_somebody_applies():
    """Then it is known who, since when; the same again changes neither; the file's own content takes it back."""
    file = rules.attributed(State(), replace(BEFORE), Origin("file", "file"), WHEN, file_digest="d1")
    assert (file.file_digest, file.file_document, file.applied_by) == ("d1", digest_of({"n": 1}), None)
    other = rules.attributed(file, replace(file, document={"n": 2}), APPLY, WHEN)
    assert (other.applied_by, other.applied_since, other.file_digest) == ("anna", WHEN, "d1")
    again = rules.attributed(other, replace(other, hash="more"), Origin("otto", "apply"), LATER)
    assert (again.applied_by, again.applied_since) == ("anna", WHEN)
    back = rules.attributed(again, replace(again, document={"n": 1}), Origin("otto", "rollback"), LATER)
    assert (back.applied_by, back.applied_since) == (None, None)
    newer = rules.attributed(again, replace(again), Origin("file", "file"), LATER, file_digest="d2")
    assert (newer.applied_by, newer.file_digest, newer.file_document) == (None, "d2", digest_of({"n": 2}))


@pytest.mark.parametrize("kind", ["discovery", "resume"])
def test_nobody_has_applied_what_came_by_itself(kind):
    """Discovery and a restart leave the file's word as it is; and without a file there is none."""
    before = replace(BEFORE, file_digest="d1", file_document=digest_of({"n": 1}))
    after = replace(before, document={"n": 2})
    assert rules.attributed(before, after, Origin("consul", kind), WHEN) is after
    assert rules.attributed(BEFORE, replace(BEFORE, document={"n": 2}), APPLY, WHEN).applied_by is None


def test_an_entry_names_the_changes_up_to_a_number():
    """The rest are counted."""
    many = [f"b{number}" for number in range(KEPT_CHANGES + 5)]
    after = State(generation=2, hash="h", document={"n": 2}, services=services(*many))
    entry = rules.entry_of(State(services=services()), after, APPLY, WHEN)
    assert (entry.generation, entry.hash, entry.by, entry.origin, entry.when) == (
        2,
        "h",
        "anna",
        "apply",
        WHEN,
    )
    assert entry.document == digest_of({"n": 2})
    assert (len(entry.changes), entry.more) == (KEPT_CHANGES, 5)
    assert rules.entry_of(after, after, APPLY, WHEN).changes == []


def test_a_word_that_repeats_the_snapshot_takes_an_override_back():
    """Where it was taken back is remembered, for a data plane that did not hear it, until another word is said."""
    back = rules.override(BEFORE, "web", "a", {"state": "enabled"}, by="op", when=WHEN)
    assert (back.overrides, back.retracted) == ((), (("web", "a", "state"),))
    other = rules.override(back, "web", "a", {"weight": 3}, by="op", when=WHEN)
    assert other.retracted == (("web", "a", "state"),)
    again = rules.override(other, "web", "a", {"state": "drain"}, by="op", when=LATER)
    assert again.retracted == ()
    assert {(each.field, each.value, each.since) for each in again.overrides} == {
        ("weight", 3, WHEN),
        ("state", "drain", LATER),
    }


def test_no_more_is_remembered_as_taken_back_than_a_number():
    """The newest are kept."""
    state = replace(BEFORE, overrides=(), services=services(*(f"b{number}" for number in range(120))))
    for number in range(120):
        state = rules.override(state, "web", f"b{number}", {"weight": 1}, by="op", when=WHEN)
    assert [place[1] for place in state.retracted] == [f"b{number}" for number in range(20, 120)]


@pytest.mark.parametrize(
    ("state", "service", "backend", "said"),
    [
        (BEFORE, "db", "a", "no service db; there are: web"),
        (State(), "db", "a", "no service db; there are: none"),
        (BEFORE, "web", "x", "no backend x in service web; there are: a, b"),
        (State(services=services()), "web", "x", "no backend x in service web; there are: none"),
    ],
)
def test_a_typing_error_is_told_what_there_is(state, service, backend, said):
    """A word about nobody is refused."""
    with pytest.raises(UnknownError) as caught:
        rules.override(state, service, backend, {"weight": 2}, by="op", when=WHEN)
    assert str(caught.value) == said


HERE, AWAY = Endpoint("a", "/a"), Endpoint("b", "/b")
IMPACT = {
    "drain": [{"service": "web", "id": "a", "connections": 2}],
    "pool": [],
    "remap": {},
    "listeners": [],
}
CHANGE = {"action": "remove", "kind": "backend", "service": "web", "id": "a"}


def test_a_plan_is_what_data_planes_say():
    """Who cannot be asked has a row that says so, and adds nothing."""
    answers = {HERE: {"changes": [CHANGE], "impact": IMPACT}, AWAY: LateError("b", 1.0)}
    report = rules.plan_report(answers, {}, services("a"))
    assert (report["changes"], report["impact"]["drain"]) == ([CHANGE], IMPACT["drain"])
    assert [(row["name"], row["result"]) for row in report["dataplanes"]] == [("a", "ok"), ("b", "late")]


def test_a_plan_without_any_answer_is_the_difference_to_what_ran_last():
    """Nothing is known of whom it would hit."""
    report = rules.plan_report({AWAY: LateError("b", 1.0)}, services("a", "b"), services("b"))
    assert [(each["action"], each["id"]) for each in report["changes"] if each["kind"] == "backend"] == [
        ("remove", "a"),
        ("change", "b"),
    ]
    assert report["impact"] == {"drain": [], "pool": [], "remap": {}, "listeners": []}


def test_one_refusal_stops_a_change():
    """Everybody who would refuse is named; without one nothing stands in the way."""
    refusals = [RefusedError(name, 422, {"message": f"not {name}"}) for name in ("a", "b")]
    with pytest.raises(HeldBackError) as caught:
        rules.refuse_if(refusals, IMPACT, ApplyOptions())
    assert str(caught.value) == "nothing was changed\na: refused: not a\nb: refused: not b"
    rules.refuse_if([], IMPACT, ApplyOptions(max_remap=0.0))


def test_no_more_sticky_clients_move_than_may():
    """A share that is just what was allowed passes."""
    impact = {**IMPACT, "remap": {"web": "12.5%", "db": "3%"}}
    rules.refuse_if([], impact, ApplyOptions())
    rules.refuse_if([], impact, ApplyOptions(max_remap=0.125))
    with pytest.raises(
        HeldBackError, match=r"^nothing was changed: web: 12\.5% of .* above --max-remap 12%$"
    ):
        rules.refuse_if([], impact, ApplyOptions(max_remap=0.12))


def test_a_backend_that_leads_back_here_is_invalid():
    """Its place in the lb.yaml is named."""
    rules.refuse_loops(compiled(services("a")))
    looped = compiled(services("a"), loops=((("services", "web", "backends", 0), "is itself"),))
    with pytest.raises(InputError) as caught:
        rules.refuse_loops(looped)
    assert caught.value.problems == [{"path": "services.web.backends[0]", "message": "is itself"}]


def test_a_wish_is_the_snapshot_and_what_operators_say():
    """Also where they have taken something back."""
    wish = rules.wish_of(replace(BEFORE, retracted=(("web", "b", "weight"), ("gone", "x", "weight"))))
    assert json.loads(wish.body) == {
        "version": 1,
        "generation": 1,
        "hash": "old",
        "services": BEFORE.services,
    }
    assert (wish.target.generation, wish.target.hash) == (1, "old")
    assert wish.words == {("web", "a", "state"): "drain", ("web", "b", "weight"): 1}


def entry(generation, document):
    """Make one of the history."""
    return Entry(generation, f"h{generation}", WHEN, "op", "apply", document, [])


KNOWN = History((entry(1, "x"), entry(2, "y"), entry(3, "z"), entry(4, "z")))


def test_a_rollback_returns_to_another_content():
    """The newest one; or to the generation that is named, though it has the same."""
    assert rules.rollback_entry(KNOWN, "z", None).generation == 2
    assert rules.rollback_entry(KNOWN, "y", None).generation == 4
    assert rules.rollback_entry(KNOWN, "z", 3).generation == 3


@pytest.mark.parametrize(
    ("known", "generation", "said"),
    [
        (KNOWN, 9, "generation 9 is not in the history, which has 1 to 4"),
        (History(), 9, "generation 9 is not in the history, which has none"),
        (History(), None, "it has no generation; what ran before was not applied by lb-control"),
        (History((entry(5, "z"),)), None, "it has one content, of generation 5; what ran before"),
    ],
)
def test_nothing_to_return_to(known, generation, said):
    """It is said what there is."""
    with pytest.raises(UnknownError) as caught:
        rules.rollback_entry(known, "z", generation)
    assert said in str(caught.value)


def test_the_previous_content_is_not_guessed():
    """It may be in what cannot be read; one that is named is returned to."""
    known = replace(KNOWN, unread=("000000000002.json: Permission denied",))
    with pytest.raises(StoreError, match=r"name a generation: 000000000002\.json"):
        rules.rollback_entry(known, "z", None)
    assert rules.rollback_entry(known, "z", 1).generation == 1
