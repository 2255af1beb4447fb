"""The checksum that a version 2 header may carry of itself."""

from __future__ import annotations

from typing import Final


def crc32c(data: bytes) -> int:
    """Compute the CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE: Final = tuple(_crc_entry(byte) for byte in range(256))
