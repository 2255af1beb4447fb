"""What can be seen of files of TLS without being a data plane: their absence, their end, what does not belong together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.desired import tls_files
from controlplane.desired.tls_files import file_warnings
from schemas.desired import DesiredService
from tests.support.tls import CertificateAuthority


@pytest.fixture
def authority(tmp_path):
    """Return who signs."""
    return CertificateAuthority(tmp_path / "ca")


def warned(wall, **said):
    """Return what is said of one service."""
    service = DesiredService.model_validate({"listen": ":443", "backends": ["127.0.0.1:1"], **said})
    return file_warnings({"web": service}, wall)


def test_what_is_in_order_is_not_mentioned(authority):
    """Nor is a service without TLS, or one that trusts whom the system trusts."""
    pair = authority.issue("a.example")
    wall = pair.cert.stat().st_mtime
    tls = {"certificates": [pair.spec], "client_ca": str(authority.ca)}
    assert warned(wall, tls=tls, backend_tls={**pair.spec, "ca": str(authority.ca)}) == []
    assert warned(wall, backend_tls={}) == warned(wall) == []


def test_what_is_not_here(tmp_path):
    """Each file at its place: whoever reads it may be elsewhere."""
    gone = {name: str(tmp_path / name) for name in ("cert", "key", "ca")}
    pair = {name: gone[name] for name in ("cert", "key")}
    found = warned(
        0.0, tls={"certificates": [pair], "client_ca": gone["ca"]}, backend_tls={**pair, "ca": gone["ca"]}
    )
    places = ["tls.certificates[0].cert", "tls.certificates[0].key", "tls.client_ca"]
    places += ["backend_tls.cert", "backend_tls.key", "backend_tls.ca"]
    assert [one.partition(": ")[0] for one in found] == [f"services.web.{place}" for place in places]
    assert found[0] == f"services.web.tls.certificates[0].cert: {gone['cert']} is not on this machine"


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (timedelta(days=-3), "holds only from"),
        (timedelta(0), None),
        (timedelta(days=24), "ends at"),
        (timedelta(days=31), "ended at"),
    ],
)
def test_when_it_holds(authority, after, words):
    """From its beginning to a week before its end."""
    pair = authority.issue("a.example")
    wall = pair.cert.stat().st_mtime + after.total_seconds()
    found = warned(wall, tls={"certificates": [pair.spec]})
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_what_does_not_belong_together(authority):
    """Where the key may be read; where it may not, that is no problem of this file's."""
    one, other = authority.issue("a.example"), authority.issue("b.example", algorithm="rsa")
    wall = one.cert.stat().st_mtime
    said = {"certificates": [{"cert": str(one.cert), "key": str(other.key)}]}
    assert warned(wall, tls=said) == [
        f"services.web.tls.certificates[0].key: {other.key} is not the key of {one.cert}"
    ]


def test_a_key_need_not_be_readable(authority, monkeypatch):
    """Tests are root's, who may read everything: so the question is answered for somebody else."""
    one, other = authority.issue("a.example"), authority.issue("b.example")
    monkeypatch.setattr(tls_files.os, "access", lambda *_: False)
    said = {"certificates": [{"cert": str(one.cert), "key": str(other.key)}]}
    assert warned(one.cert.stat().st_mtime, tls=said) == []


def test_a_key_that_everybody_may_read(authority):
    """Whatever else is right."""
    pair = authority.issue("a.example")
    pair.key.chmod(0o604)
    (found,) = warned(pair.cert.stat().st_mtime, tls={"certificates": [pair.spec]})
    assert "may be read by everybody" in found


def test_content_that_is_no_certificate(authority):
    """A key in place of it, and never a word of what is in there."""
    pair = authority.issue("a.example")
    pair.cert.write_text(pair.key.read_text())
    (found,) = warned(0.0, tls={"certificates": [pair.spec]})
    assert "has no certificate in PEM" in found
    assert pair.key.read_text().splitlines()[1] not in found
