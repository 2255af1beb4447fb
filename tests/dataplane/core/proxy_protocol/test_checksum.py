"""The checksum of a version 2 header."""

from __future__ import annotations

from dataplane.core.proxy_protocol.checksum import crc32c


def test_crc32c_has_the_published_value():
    """The checksum is CRC-32C: the check value of the nine digits, and RFC 3720's 32 bytes of zeros."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0
