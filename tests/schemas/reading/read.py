"""What tests of reading share."""

from __future__ import annotations

import pytest

from schemas.errors import InvalidDocument
from tests.support.documents import parse_document


def value(text):
    """Return what a text holds."""
    return parse_document(text.encode()).value


def problems(raw):
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        parse_document(raw if isinstance(raw, bytes) else raw.encode())
    return [str(problem) for problem in caught.value.problems]
