"""TLS to data planes: which files are used, when they are read again, and what is said when something does not fit."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.dataplanes.client import DataPlaneClient
from controlplane.dataplanes.endpoint import endpoint_of
from controlplane.dataplanes.requests import Caller
from controlplane.dataplanes.tls import Tls, tls_of
from controlplane.errors import InputError, UnreachableError
from tests.support.authority import Authority

pytestmark = pytest.mark.needs("openssl")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n" + b'{"pid": 7}'


class Pki:
    """Two authorities of one name, and what the first one has signed."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "one")
        self.other = Authority(folder / "two")
        self.ca = self.authority.ca
        self.server = self.authority.issue("server")
        self.client = self.authority.issue("client")
        self.stranger = self.other.issue("stranger")

    def options(self, cert=None, ca=None) -> dict[str, Path]:
        """What names this authority and a certificate."""
        given = {"ca_file": ca or self.ca}
        return given if cert is None else {**given, "cert_file": cert[0], "key_file": cert[1]}


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Pki:
    """Certificates, which tests leave as they are."""
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def server(cert, client_ca=None, *, version=None) -> Iterator[str]:
    """Serve TLS as servers do that tell the client why a handshake failed; yields the address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(*cert)
    context.verify_mode = ssl.CERT_NONE if client_ca is None else ssl.CERT_REQUIRED
    if version is not None:
        context.maximum_version = version
    with accepting(lambda connection: answer(context, connection)) as address:
        yield address


def answer(context, connection):
    """Shake hands, read a request and answer it."""
    shaking = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    with contextlib.suppress(OSError), shaking as secure:
        try:
            secure.do_handshake()
        except ssl.SSLError:
            # Closing with unread input would be a reset, which may overtake the alert.
            secure.shutdown(socket.SHUT_WR)
            while secure.recv(65536):
                pass
        else:
            secure.recv(65536)
            secure.sendall(OK)


@contextlib.contextmanager
def accepting(serve) -> Iterator[str]:
    """Call `serve` with each connection until the end; yields the address."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            while True:
                connection, _ = listener.accept()
                with connection:
                    if done.is_set():
                        return
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield address
        finally:
            done.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


async def ask_async(url, tls):
    """Ask with the daemon's client."""
    async with DataPlaneClient(endpoint_of(url), Caller(tls=tls)) as client:
        return await client.ask(requests.get("/v1/info"), timeout_s=10)


async def ask_blocking(url, tls):
    """Ask with the commands' client."""
    return BlockingClient(endpoint_of(url), Caller(tls=tls)).ask(requests.get("/v1/info"), timeout_s=10)


both = pytest.mark.parametrize("ask", [ask_async, ask_blocking])


@both
async def test_authority_and_certificate_are_used(pki, ask):
    """A server of a private authority that asks for a certificate of it answers."""
    with server(pki.server, pki.ca) as address:
        assert await ask(f"https://{address}", tls_of({}, **pki.options(pki.client))) == {"pid": 7}


async def test_files_are_read_beside_the_loop(pki):
    """The daemon's loop does not wait for files."""
    with server(pki.server, pki.ca) as address, blockbuster_ctx():
        assert await ask_async(f"https://{address}", tls_of({}, **pki.options(pki.client))) == {"pid": 7}


@both
async def test_one_file_may_hold_certificate_and_key(pki, ask, tmp_path):
    """Without --key-file the key is looked for in the certificate's file."""
    whole = tmp_path / "whole.pem"
    whole.write_bytes(b"".join(path.read_bytes() for path in pki.client))
    with server(pki.server, pki.ca) as address:
        tls = tls_of({}, ca_file=pki.ca, cert_file=whole)
        assert await ask(f"https://{address}", tls) == {"pid": 7}


@both
async def test_variables_stand_in_for_options(pki, ask):
    """LB_CA_FILE, LB_CERT_FILE and LB_KEY_FILE are used, and an option wins over its variable."""
    environ = {
        "LB_CA_FILE": str(pki.other.ca),
        "LB_CERT_FILE": str(pki.client[0]),
        "LB_KEY_FILE": str(pki.client[1]),
    }
    with server(pki.server, pki.ca) as address:
        assert await ask(f"https://{address}", tls_of(environ, ca_file=pki.ca)) == {"pid": 7}
        with pytest.raises(UnreachableError, match=f"checked with LB_CA_FILE={pki.other.ca}"):
            await ask(f"https://{address}", tls_of(environ))


@both
async def test_system_authorities_without_an_option(pki, ask, monkeypatch):
    """Without --ca-file the system's authorities count, which are those of SSL_CERT_FILE where it is set."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))
    with server(pki.server) as address:
        assert await ask(f"https://{address}", Tls()) == {"pid": 7}


def wrong_files(pki, folder):
    """Return options that cannot be used, each with the message."""
    cert, key = pki.client
    empty, der = folder / "empty.pem", folder / "cert.der"
    empty.touch()
    der.write_bytes(ssl.PEM_cert_to_DER_cert(cert.read_text()))
    encrypted = pki.authority.encrypt(key)
    both_kinds = folder / "both.pem"
    both_kinds.write_bytes(cert.read_bytes() + pki.server[1].read_bytes())
    missing = folder / "missing"
    broken = folder / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return [
        ({"ca_file": missing}, f"--ca-file {missing}: No such file or directory"),
        ({"ca_file": folder}, f"--ca-file {folder}: Is a directory"),
        ({"ca_file": empty}, f"--ca-file {empty}: no certificate in PEM form"),
        ({"ca_file": der}, f"--ca-file {der}: no certificate in PEM form"),
        ({"cert_file": missing, "key_file": key}, f"--cert-file {missing}: No such file or directory"),
        ({"cert_file": cert, "key_file": missing}, f"--key-file {missing}: No such file or directory"),
        ({"cert_file": der, "key_file": key}, f"--cert-file {der}: no certificate in PEM form"),
        ({"cert_file": broken, "key_file": key}, f"with --cert-file {broken}: "),
        (
            {"cert_file": cert},
            f"--cert-file {cert}: no private key: put it there, or name its file with --key-file",
        ),
        ({"cert_file": cert, "key_file": cert}, f"--key-file {cert}: no private key"),
        ({"cert_file": cert, "key_file": encrypted}, f"--key-file {encrypted}: the key is encrypted"),
        (
            {"cert_file": both_kinds},
            f"--cert-file {both_kinds}: the key does not fit the first certificate there",
        ),
        (
            {"cert_file": cert, "key_file": pki.server[1]},
            f"--key-file {pki.server[1]}: the key does not fit the first certificate of --cert-file {cert}",
        ),
        ({"key_file": key}, f"--key-file {key}: its certificate is not named: --cert-file"),
    ]


async def test_wrong_files_are_named_with_their_option(pki, tmp_path):
    """Whatever is wrong with a file is said with its path and the option, to commands and by both clients."""
    for options, message in wrong_files(pki, tmp_path):
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            tls_of({}, **options).load()
        assert caught.value.exit_code == 2
        for ask in (ask_async, ask_blocking):
            with pytest.raises(UnreachableError, match=re.escape(message)):
                await ask("https://127.0.0.1:1", tls_of({}, **options))


@both
async def test_unix_sockets_need_no_files(ask, tmp_path):
    """What is only for https:// is not looked at for anybody else."""
    with pytest.raises(UnreachableError, match=f"unreachable: {tmp_path}/none: No such file"):
        await ask(f"{tmp_path}/none", tls_of({}, ca_file=tmp_path / "missing"))


@both
async def test_unknown_authority(pki, ask):
    """The message names the authorities that were used, and the option."""
    with server(pki.server) as address:
        with pytest.raises(UnreachableError) as caught:
            await ask(f"https://{address}", tls_of({}, ca_file=pki.other.ca))
        assert f"https://{address}: certificate verify failed: " in str(caught.value)
        assert f"checked with --ca-file {pki.other.ca}: the authority that signed it" in str(caught.value)
        with pytest.raises(UnreachableError) as caught:
            await ask(f"https://{address}", Tls())
        assert "this system's authorities" in str(caught.value)
        assert "name the authority that signed it with --ca-file" in str(caught.value)


@both
async def test_wrong_name(pki, ask):
    """A certificate for somebody else is told as one."""
    with (
        server(pki.authority.issue("elsewhere", names="DNS:elsewhere.example")) as address,
        pytest.raises(UnreachableError, match=r"not valid for '127\.0\.0\.1': call it by a name in its"),
    ):
        await ask(f"https://{address}", tls_of({}, **pki.options()))


@both
async def test_expired(pki, ask):
    """An expired certificate of a data plane is told as one."""
    old = pki.authority.issue("old", dates=("20200101000000Z", "20200201000000Z"))
    with (
        server(old) as address,
        pytest.raises(
            UnreachableError, match=r"certificate has expired, checked with .* renew its --tls-cert"
        ),
    ):
        await ask(f"https://{address}", tls_of({}, **pki.options()))


@both
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_certificate_is_asked_for(pki, ask, version):
    """A server that wants a certificate, or another one, makes the message name the option and the file."""
    with server(pki.server, pki.ca, version=version) as address:
        with pytest.raises(
            UnreachableError, match=r"refused the handshake .* name a certificate with --cert-file"
        ):
            await ask(f"https://{address}", tls_of({}, **pki.options()))
        with pytest.raises(UnreachableError) as caught:
            await ask(f"https://{address}", tls_of({}, **pki.options(pki.stranger)))
        assert "unknown ca" in str(caught.value)
        assert f"must hold the authority that signed --cert-file {pki.stranger[0]}" in str(caught.value)


@both
async def test_closed_without_a_word(pki, ask):
    """A server that only closes, as asyncio's after a failed handshake, may want a certificate: said as a guess."""
    with accepting(lambda connection: connection.recv(65536)) as address:
        with pytest.raises(
            UnreachableError, match=r"without an answer: if it has --tls-client-ca, name a cert"
        ):
            await ask(f"https://{address}", tls_of({}, **pki.options()))
        with pytest.raises(UnreachableError, match="without an answer; if it has --tls-cert, say https://"):
            await ask(f"http://{address}", Tls())


@both
async def test_no_tls_there(pki, ask):
    """A port that speaks plain HTTP is told as one."""
    with (
        accepting(lambda connection: connection.sendall(OK)) as address,
        pytest.raises(UnreachableError, match="no TLS is spoken there: say http://"),
    ):
        await ask(f"https://{address}", tls_of({}, **pki.options()))


def test_files_are_read_again_only_when_they_change(pki, tmp_path):
    """The context stays until a file is replaced; it is another one then."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    replace(cert, pki.client[0])
    replace(key, pki.client[1])
    tls = tls_of({}, ca_file=pki.ca, cert_file=cert, key_file=key)
    first = tls.load()
    assert tls.load() is first
    replace(cert, pki.stranger[0])
    assert tls.load() is first
    assert f"--key-file {key}: the key does not fit" in str(tls.trouble)
    replace(key, pki.stranger[1])
    second = tls.load()
    assert second is not first
    assert tls.trouble is None
    key.unlink()
    assert tls.load() is second
    assert tls.trouble == f"--key-file {key}: No such file or directory"


@both
async def test_renewed_files_are_used_for_the_next_connection(pki, ask, tmp_path):
    """After both sides moved to another authority, the same client reaches the server; until then it says why not."""
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    for path, source in ((ca, pki.ca), (cert, pki.client[0]), (key, pki.client[1])):
        replace(path, source)
    tls = tls_of({}, ca_file=ca, cert_file=cert, key_file=key)
    with server(pki.server, pki.ca) as address:
        assert await ask(f"https://{address}", tls) == {"pid": 7}
    with server(pki.other.issue("server"), pki.other.ca) as address:
        ca.write_text("half")
        with pytest.raises(
            UnreachableError, match=r"files of before are in use; newer ones cannot be: --ca-file"
        ):
            await ask(f"https://{address}", tls)
        for path, source in ((ca, pki.other.ca), (cert, pki.stranger[0]), (key, pki.stranger[1])):
            replace(path, source)
        assert await ask(f"https://{address}", tls) == {"pid": 7}


def replace(path, source):
    """Put a copy in the place of a file, at once and whole."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(source.read_bytes())
    beside.replace(path)
