"""The words for endings."""

from __future__ import annotations

import pickle

from dataplane.core.reasons import CloseReason, Harm, Source


def test_every_end_is_judged() -> None:
    """Whose doing it was, and whether an honest client was harmed by it; a client's own doing harms it not."""
    assert not any(reason.harm for reason in CloseReason if reason.source is Source.CLIENT)
    assert {reason for reason in CloseReason if reason.source is Source.BACKEND and not reason.harm} == {
        CloseReason.BACKEND_CLOSED
    }
    assert [reason for reason in CloseReason if reason.harm is Harm.CUT] == [CloseReason.BACKEND_RESET]


def test_a_reason_is_its_word() -> None:
    """In logs, metrics and messages between processes it is the word, and the word leads back to it."""
    for reason in CloseReason:
        assert reason == reason.value == str(reason)
        assert CloseReason(reason.value) is pickle.loads(pickle.dumps(reason)) is reason  # noqa: S301 - made just now
