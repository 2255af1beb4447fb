"""What both planes write into headers and read there: who pushes, and a token as it stands in a file."""

from __future__ import annotations

import codecs
from typing import Final

PUSHED_BY: Final = "Livelb-Pushed-By"
"""Who pushes a snapshot: JSON, as `schemas.api.PushedBy`."""
_LONGEST: Final = 255
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def name_in_header(text: str) -> str:
    """Write a name or path as `PushedBy` takes it, whatever is in it: a push is not refused for such a courtesy."""
    return "".join(each if each.isprintable() else "?" for each in text)[-_LONGEST:] or "unknown"


class TokenError(ValueError):
    """What is in the file is no token; the text says why, and nothing of what is in it."""


def parse_token(raw: bytes) -> str:
    """Return the token of a file: one line of ASCII, without what editors put around it, such as a byte order mark.

    TokenError: there is none that a header could carry.
    """
    if raw.startswith(_UTF_16):
        raise TokenError("is UTF-16; save it as UTF-8")
    try:
        token = raw.removeprefix(codecs.BOM_UTF8).decode("ascii").strip()
    except UnicodeDecodeError:
        raise TokenError("is not ASCII") from None
    if not token:
        raise TokenError("is empty")
    if not token.isprintable():
        raise TokenError("is not one line")
    return token
