"""A document that has to be without flaws."""

from __future__ import annotations

from schemas.errors import InvalidDocument
from schemas.reading.document import Document, scan_document


def parse_document(raw: bytes) -> Document:
    """Read a document.

    Raises:
        InvalidDocument: It is not UTF-8, not YAML, or contains what is not allowed.
    """
    document = scan_document(raw)
    if document.flaws:
        raise InvalidDocument(tuple(flaw.problem() for flaw in document.flaws))
    return document
