"""The words for endings."""

from __future__ import annotations

from dataplane.core.reasons import HARMS, REASONS, CloseReason, Harm, Source


def test_every_end_is_judged() -> None:
    """Whose doing it was, and whether an honest client was harmed by it; a client's own doing harms it not."""
    assert REASONS.keys() == HARMS.keys() == set(CloseReason)
    assert not any(HARMS[reason] for reason, source in REASONS.items() if source is Source.CLIENT)
    assert {
        reason for reason, source in REASONS.items() if source is Source.BACKEND and not HARMS[reason]
    } == {CloseReason.BACKEND_CLOSED}
    assert [reason for reason, harm in HARMS.items() if harm is Harm.CUT] == [CloseReason.BACKEND_RESET]
