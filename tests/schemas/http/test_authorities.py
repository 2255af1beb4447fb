"""Which certificates are believed: the same on every Python, and what an operator names as an authority is one."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from schemas.http.authorities import trusting

pytestmark = pytest.mark.needs("openssl")

_CONFIGURATION = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:lb.example
"""


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority without key usage, one below it, and the server's certificate, which that one signed."""
    folder = tmp_path_factory.mktemp("pki")
    (folder / "cnf").write_text(_CONFIGURATION)

    def make(name, signer, extensions):
        key = (
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            f"{name}.key",
        )
        by = () if signer is None else ("-CA", f"{signer}.pem", "-CAkey", f"{signer}.key")
        made = ("-x509", "-config", "cnf", "-subj", f"/CN={name}", "-extensions", extensions, "-days", "2")
        subprocess.run(
            ["openssl", "req", *made, *key, *by, "-out", f"{name}.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    make("root", None, "authority")
    make("middle", "root", "authority")
    make("server", "middle", "leaf")
    chain = (folder / "server.pem").read_text() + (folder / "middle.pem").read_text()
    (folder / "chain.pem").write_text(chain)
    return folder


def shake_hands(pki, client: ssl.SSLContext) -> None:
    """Connect a client to the server, in memory.

    Raises:
        ssl.SSLError: One of them refused.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki / "chain.pem", pki / "server.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="lb.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("authority", ["root", "middle"])
def test_private_authorities(pki, authority):
    """One without key usage, and one in the middle of a chain, are what they are named for."""
    shake_hands(pki, trusting(ssl.Purpose.SERVER_AUTH, pki / f"{authority}.pem"))


def test_a_strict_client(pki):
    """What newer Pythons do by default refuses the same authority: the examples here are ones that matter."""
    strict = trusting(ssl.Purpose.SERVER_AUTH, pki / "root.pem")
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(pki, strict)


def test_others_are_not_believed(pki, tmp_path):
    """Nor is anybody whom no named authority has signed."""
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(pki, trusting(ssl.Purpose.SERVER_AUTH, None))


@pytest.mark.parametrize("purpose", [ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH])
def test_flags_do_not_depend_on_the_python(pki, purpose, monkeypatch):
    """Whatever the default of the running Python is."""
    make = ssl.create_default_context

    def strict(*arguments, **options):
        context = make(*arguments, **options)
        context.verify_flags = ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    flags = trusting(purpose, pki / "root.pem").verify_flags
    assert flags == ssl.VERIFY_X509_PARTIAL_CHAIN
