"""What an HTTP/1 response begins with, as far as a check has to know."""

from __future__ import annotations

import re
from typing import Final

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
"""RFC 9112, section 4. The space before an absent reason is often left out."""
_STATUS_START: Final = b"HTTP/1."
_SWITCHING_PROTOCOLS: Final = 101
"""The one status below 200 that is final (RFC 9110, 15.2.2)."""
_FINAL: Final = 200


def http_status(data: bytes | bytearray) -> int | None:
    """Find the final status, 100..599, in what has come of an HTTP/1 response (RFC 9112, sections 2 and 4).

    None while more is needed; 0 if this is no HTTP/1 response and will not become one.
    """
    start = 0
    while (end := data.find(b"\r\n", start)) >= 0:
        line = _STATUS_LINE.fullmatch(data, start, end)
        if line is None:
            return 0
        status = int(line[1])
        if status >= _FINAL or status == _SWITCHING_PROTOCOLS:
            return status
        head_end = data.find(b"\r\n\r\n", end)
        if head_end < 0:
            return None
        start = head_end + 4
    begun = bytes(data[start : start + len(_STATUS_START)])
    return None if _STATUS_START.startswith(begun) else 0
