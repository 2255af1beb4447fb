"""Tokens and certificates of the API over TCP: what is renewed in their files counts without a restart."""

from __future__ import annotations

import http.client
import ssl
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.api.credentials import CredentialFiles, Credentials, not_after
from tests.support.authority import Authority
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

EACH_WAY = pytest.mark.parametrize("workers", ["1", "2"])


@pytest.fixture
def port():
    """Where the API is."""
    with HeldPort() as port:
        yield port


def ask(port, token=None, tls=None):
    """Ask who is there; return the status."""
    if tls is None:
        connection = http.client.HTTPConnection(port.host, port.port, timeout=10)
    else:
        connection = http.client.HTTPSConnection(port.host, port.port, timeout=10, context=tls)
    with closing(connection):
        connection.request("GET", "/v1/info", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status


def replace(path, source):
    """Put another file in its place at once."""
    beside = path.with_suffix(".new")
    beside.write_bytes(source.read_bytes())
    beside.replace(path)


def told(plane, kind):
    """Return the fields of the last event of a kind in the log, once there is one."""
    wait_for(lambda: f'"event": "{kind}"' in plane.output, kind)
    return [line for line in plane.output.splitlines() if f'"event": "{kind}"' in line][-1]


@EACH_WAY
def test_another_token(tmp_path, port, workers):
    """The new one opens the door, the old one does not any more; an empty file changes nothing, and is told."""
    file = tmp_path / "token"
    file.write_text("first\n")
    with DataPlane(["--api", port.address, "--token-file", str(file), "--workers", workers]) as plane:
        assert [ask(port, token) for token in ("first", "second")] == [200, 401]
        file.write_text("second, and longer\n")
        assert [ask(port, token) for token in ("first", "second, and longer")] == [401, 200]
        assert f'"path": "{file}"' in told(plane, "credentials_renewed")
        file.write_text("")
        assert ask(port, "second, and longer") == 200
        line = told(plane, "credentials_not_renewed")
        assert f"--token-file {file}: is empty" in line
        assert "put it right" in line
        assert "second" not in plane.output
        file.write_text("third")
        assert [ask(port, token) for token in ("second, and longer", "third")] == [401, 200]


@EACH_WAY
@pytest.mark.needs("openssl")
def test_another_authority(tmp_path, port, workers):
    """Both sides move to another authority while the process runs; half of a renewal leaves the old one in force."""
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    files = [tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem")]
    cert, key, ca = files

    def client(authority, trusted):
        context = ssl.create_default_context(cafile=trusted.ca)
        context.load_cert_chain(*authority.issue("client"))
        return context

    def refused(context):
        try:
            ask(port, tls=context)
        except (ssl.SSLError, ConnectionError):
            return True
        return False

    of_first, of_second, mixed = client(first, first), client(second, second), client(first, second)
    for path, source in zip(files, (*first.issue("plane"), first.ca), strict=True):
        replace(path, source)
    tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca)]
    with DataPlane(["--api", port.address, *tls, "--workers", workers]) as plane:
        assert ask(port, tls=of_first) == 200
        assert refused(of_second)
        with closing(http.client.HTTPSConnection(port.host, port.port, timeout=10, context=of_first)) as kept:
            kept.request("GET", "/v1/info")
            kept.getresponse().read()

            new_cert, new_key = second.issue("plane")
            replace(cert, new_cert)
            assert ask(port, tls=of_first) == 200  # the key is still the old one's: so is the certificate
            assert "mismatch" in told(plane, "credentials_not_renewed").lower()

            replace(key, new_key)
            assert (
                ask(port, tls=mixed) == 200
            )  # another certificate of ours, and the old authority for clients
            assert refused(of_second)
            assert f'"path": "{cert}"' in told(plane, "credentials_renewed")

            replace(ca, second.ca)
            assert ask(port, tls=of_second) == 200
            assert refused(mixed)
            assert refused(of_first)

            kept.request("GET", "/v1/info")
            assert kept.getresponse().status == 200


@pytest.mark.needs("openssl")
def test_who_was_let_in_is_asked_again(tmp_path, port):
    """A session of before is not resumed: a client's certificate is looked at for each connection."""
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("plane")
    tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(authority.ca)]
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(*authority.issue("client"))
    with DataPlane(["--api", port.address, *tls]):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = version
            with closing(http.client.HTTPSConnection(port.host, port.port, context=context)) as connection:
                connection.request("GET", "/v1/info")
                connection.getresponse().read()
                session = connection.sock.session
                assert connection.sock.version() == version.name.replace("_", ".")
            assert session is None or not session.has_ticket


@pytest.mark.needs("openssl")
def test_an_encrypted_key_is_refused(tmp_path, port):
    """Nobody is asked for a password at a terminal: exit 2, and what to do."""
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("plane")
    tls = [
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(authority.encrypt(key)),
        "--tls-client-ca",
        str(authority.ca),
    ]
    plane = DataPlane(["--api", port.address, *tls])
    with pytest.raises(AssertionError):
        plane.start()
    assert plane.poll() == 2
    plane.wait_output("the key is encrypted")
    plane.close()


@pytest.mark.needs("openssl")
def test_an_expired_certificate_is_told(tmp_path, port):
    """At the start, and when it is replaced by another that has expired; not when by one that holds."""
    authority = Authority(tmp_path / "authority")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", authority.ca
    lasting, first, second = (
        authority.issue(name, dates=dates)
        for name, dates in (
            ("lasting", None),
            ("first", ("20200101000000Z", "20200102000000Z")),
            ("second", ("20200101000000Z", "20200103030405Z")),
        )
    )

    def put(pair):
        for path, source in zip((key, cert), reversed(pair), strict=True):
            replace(path, source)

    def call():
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(*lasting)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return ask(port, tls=context)

    put(first)
    tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca)]
    with DataPlane(["--api", port.address, *tls]) as plane:
        line = told(plane, "credentials_expired")
        assert f'"path": "{cert}", "not_after": "2020-01-02T00:00:00.000Z"' in line
        assert '"level": "warning"' in line
        put(lasting)
        assert call() == 200
        told(plane, "credentials_renewed")
        assert plane.output.count("credentials_expired") == 1
        put(second)
        assert call() == 200
        wait_for(lambda: plane.output.count("credentials_expired") == 2, "the second warning")
        assert '"not_after": "2020-01-03T03:04:05.000Z"' in told(plane, "credentials_expired")


@pytest.mark.parametrize("raw", [b"secret\n", b"\xef\xbb\xbfsecret\r\n"])
def test_token_of_any_editor(tmp_path, raw):
    """What an editor puts around the token is no part of it."""
    file = tmp_path / "token"
    file.write_bytes(raw)
    assert Credentials(CredentialFiles(file, None, None, None)).token() == "secret"


def test_what_is_no_token(tmp_path):
    """It is said with the option and the file, and without what is in it."""
    file = tmp_path / "token"
    file.write_bytes("secret".encode("utf-16"))
    with pytest.raises(ValueError, match=f"^--token-file {file}: is UTF-16; save it as UTF-8$"):
        Credentials(CredentialFiles(file, None, None, None))


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
