"""Until when a certificate holds."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.api.validity import not_after
from tests.support.authority import Authority


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("until", "seconds"),
    [("20200102030405Z", 1577934245), ("20491231235959Z", 2524607999), ("20500101000000Z", 2524608000)],
)
def test_the_end_is_read(tmp_path, until, seconds):
    """Either form of a time, UTCTime until 2049 and GeneralizedTime after; of a chain, that of the first."""
    authority = Authority(tmp_path)
    cert, _ = authority.issue("it", dates=("20200101000000Z", until))
    assert not_after("words before\n" + cert.read_text() + authority.ca.read_text()) == seconds


@given(st.binary(max_size=60))
@example(b"0\x020\x00")
@example(b"0")
def test_what_is_none_is_refused(der):
    """Whatever bytes there are, it is a ValueError or a time."""
    with pytest.raises(ValueError):
        not_after(ssl.DER_cert_to_PEM_cert(der))


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"])
def test_no_certificate(text):
    """A file without one is a ValueError."""
    with pytest.raises(ValueError):
        not_after(text)
