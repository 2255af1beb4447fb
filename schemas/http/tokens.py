"""A token as it stands in a file: one line of ASCII, whatever editor has saved it."""

from __future__ import annotations

import codecs
from typing import Final

__all__ = ["TokenError", "parse_token"]

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TokenError(ValueError):
    """What is in the file is no token; the text says why, and nothing of what is in it."""


def parse_token(raw: bytes) -> str:
    """Return the token. Blanks and line ends around it are no part of it, nor is a byte order mark.

    Raises:
        TokenError: There is none that a header could carry.
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
