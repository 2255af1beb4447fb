"""What is read of certificates, as OpenSSL has it, and of anything else."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from schemas.x509 import certificate, first_certificate
from tests.support.tls import CertificateAuthority

_MADE = trustme.CA().issue_cert("www.example.com", "*.example.com", "10.0.0.1", "2001:db8::1")
PEM = _MADE.cert_chain_pems[0].bytes()
DER = ssl.PEM_cert_to_DER_cert(PEM.decode())


def own(key, *, until=datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), name="Old Name") -> bytes:
    """Return a certificate without alternative names, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(0x1234)
        .not_valid_before(datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC))
        .not_valid_after(until)
        .sign(
            key,
            None
            if hasattr(key, "sign") and not isinstance(key, ec.EllipticCurvePrivateKey)
            else hashes.SHA256(),
        )
    )
    return made.public_bytes(serialization.Encoding.PEM)


def test_names_times_and_kind(tmp_path):
    """Of what another library has made; addresses in their short form."""
    pair = CertificateAuthority(tmp_path).issue("Www.example.com", "*.example.com", "10.0.0.1", "::1")
    found = first_certificate(pair.cert.read_bytes())
    known = x509.load_pem_x509_certificate(pair.cert.read_bytes())
    assert found.names == ("www.example.com", "*.example.com", "10.0.0.1", "::1")
    assert found.not_before == known.not_valid_before_utc.timestamp()
    assert found.not_after == known.not_valid_after_utc.timestamp()
    assert int(found.serial, 16) == known.serial_number
    assert found.key == "ecdsa"


def test_rsa(tmp_path):
    """The other usual kind."""
    pair = CertificateAuthority(tmp_path).issue("a.example", algorithm="rsa")
    assert first_certificate(pair.cert.read_bytes()).key == "rsa"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ed25519.Ed25519PrivateKey, "ed25519"),
        (ed448.Ed448PrivateKey, "ed448"),
    ],
)
def test_other_kinds(key, kind):
    """Of keys, by name."""
    assert first_certificate(own(key.generate())).key == kind


def test_without_names_it_is_the_common_one():
    """In lower case, as clients ask; the numbers and times of another century are right as well."""
    late = datetime(2050, 1, 1, tzinfo=UTC) + timedelta(days=20_000)
    found = first_certificate(own(ec.generate_private_key(ec.SECP256R1()), until=late))
    assert found.names == ("old name",)
    assert found.not_before == datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert found.not_after == late.timestamp()
    assert found.serial == "1234"


def test_the_first_of_a_chain_counts():
    """Whatever stands around it."""
    other = own(ec.generate_private_key(ec.SECP256R1()))
    assert first_certificate(b"subject=x\n" + other + PEM).names == ("old name",)


@pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----", b"x" * 100])
def test_what_is_no_certificate(text):
    """It is said."""
    with pytest.raises(ValueError, match="has no certificate in PEM"):
        first_certificate(text)


def test_a_damaged_one():
    """It is said, too."""
    with pytest.raises(ValueError, match="damaged"):
        first_certificate(PEM.replace(b"MII", b"MAA", 1))


@given(cut=st.integers(0, len(DER) - 1), byte=st.integers(0, 255))
def test_hostile_bytes_raise_only_what_is_announced(cut, byte):
    """Whatever stands in a file, reading it ends, and no other error comes of it."""
    for text in (DER[:cut], DER[:cut] + bytes([byte]) + DER[cut + 1 :]):
        with contextlib.suppress(ValueError, IndexError, StopIteration):
            certificate(text)
