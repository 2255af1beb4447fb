"""Files that cannot be used are told with their place, and nothing that is told has a key in it."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from dataplane.core.spec import CertificateSpec
from dataplane.tls.files import TlsFileError, read_authorities, read_pair, refuse_expired, shown_time
from tests.support.tls import CertificateAuthority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """Return who signs."""
    return CertificateAuthority(tmp_path / "ca")


def spec_of(pair: Pair) -> CertificateSpec:
    """Return where a pair is."""
    return CertificateSpec(str(pair.cert), str(pair.key))


def refusal(spec: CertificateSpec) -> tuple[str, str, str]:
    """Return place, path and cause of a refusal, of which no word is of the key."""
    with pytest.raises(TlsFileError) as caught:
        read_pair(spec, "certificates[0].")
    error = caught.value
    assert error.__cause__ is None  # a traceback would show what OpenSSL was given
    return error.place, error.path, error.cause


def test_a_good_pair(authority):
    """What it is about is known, and OpenSSL takes it, whether in two files or in one; who may read the key is seen."""
    pair = authority.issue("a.example")
    for spec in (spec_of(pair), CertificateSpec(str(pair.single), str(pair.single))):
        read = read_pair(spec)
        assert read.certificate.names == ("a.example",)
        assert not read.readable_by_all
        read.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    pair.key.chmod(0o644)
    assert read_pair(spec_of(pair)).readable_by_all


def test_a_key_is_in_no_representation(authority):
    """Of a pair: it would be in a traceback."""
    pair = authority.issue("a.example")
    assert "PRIVATE" not in repr(read_pair(spec_of(pair)))


def test_what_is_not_there(authority):
    """Certificate and key each at their own place."""
    pair = authority.issue("a.example")
    gone = str(pair.cert.with_name("gone"))
    words = "cannot be read: no such file or directory"
    assert refusal(CertificateSpec(gone, str(pair.key))) == ("certificates[0].cert", gone, words)
    assert refusal(CertificateSpec(str(pair.cert), gone)) == ("certificates[0].key", gone, words)


def test_what_is_no_file(authority, tmp_path):
    """A folder, and a pipe at which one could wait for ever."""
    pair = authority.issue("a.example")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert refusal(CertificateSpec(str(tmp_path), str(pair.key)))[2] == "is a directory"
    assert refusal(CertificateSpec(str(pair.cert), str(fifo)))[2] == "is no regular file"


def test_a_key_that_is_not_its(authority):
    """It is the key that is said to be wrong, whatever kind it is of."""
    one, other = authority.issue("a.example"), authority.issue("b.example")
    rsa = authority.issue("b.example", algorithm="rsa")
    for key in (other.key, rsa.key):
        found = refusal(CertificateSpec(str(one.cert), str(key)))
        assert found == ("certificates[0].key", str(key), f"is not the key of {one.cert}")


def test_content_that_is_something_else(authority, tmp_path):
    """Certificate and key exchanged, a key with a passphrase, too much, damage."""
    pair = authority.issue("a.example")
    assert "no certificate in PEM" in refusal(CertificateSpec(str(pair.key), str(pair.cert)))[2]
    assert "no private key in PEM" in refusal(CertificateSpec(str(pair.cert), str(pair.cert)))[2]
    locked = tmp_path / "locked"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert "has a passphrase" in refusal(CertificateSpec(str(pair.cert), str(locked)))[2]
    large = tmp_path / "large"
    large.write_bytes(b"x" * (2**20 + 1))
    assert refusal(CertificateSpec(str(large), str(pair.key)))[2] == "is larger than 1 MiB"
    cut = tmp_path / "cut"
    cut.write_bytes(pair.key.read_bytes()[:100])
    place, _, cause = refusal(CertificateSpec(str(pair.cert), str(cut)))
    assert place == "certificates[0].cert"
    assert "is not taken by OpenSSL" in cause


def test_authorities(authority, tmp_path):
    """What is in the file is what a context gets; what is none is said."""
    text = read_authorities(str(authority.ca), "client_ca")
    assert text.encode() == authority.ca.read_bytes()
    other = tmp_path / "other"
    other.write_text("nothing")
    for path, words in ((str(other), "no certificate in PEM"), (str(tmp_path / "gone"), "cannot be read")):
        with pytest.raises(TlsFileError, match=words) as caught:
            read_authorities(path, "client_ca")
        assert (caught.value.place, caught.value.path) == ("client_ca", path)


def test_a_certificate_holds_from_its_beginning_to_before_its_end(authority):
    """To the second."""
    known = read_pair(spec_of(authority.issue("a.example"))).certificate
    refuse_expired(known, "/x", "cert", known.not_before)
    refuse_expired(known, "/x", "cert", known.not_after - 1)
    with pytest.raises(TlsFileError, match=f"ended at {shown_time(known.not_after)}"):
        refuse_expired(known, "/x", "cert", known.not_after)
    with pytest.raises(TlsFileError, match="is the clock of this machine right"):
        refuse_expired(known, "/x", "cert", known.not_before - 1)


def test_times_are_shown_in_utc():
    """Of whole seconds."""
    assert shown_time(0.0) == "1970-01-01T00:00:00Z"
