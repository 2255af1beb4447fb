from __future__ import annotations

import asyncio
import importlib.metadata
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from controlplane.discovery.consul import client as consul_client
from controlplane.discovery.consul.client import ConsulClient, check_library
from controlplane.discovery.consul.settings import ConsulError, ConsulSettings, with_address
from tests.support.ports import HeldPort


async def serve(site_of, handler):
    """Serve every path; returns the runner, which the caller cleans up."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await site_of(runner).start()
    return runner


async def hello(request):
    """Answer with what was asked."""
    return web.json_response({"path": request.path_qs, "token": request.headers.get("X-Consul-Token")})


async def ask(settings):
    """Ask one question with a client of its own."""
    client = ConsulClient(settings)
    try:
        return await client.get("/v1/x", [("dc", "a b")], timeout_s=10.0)
    finally:
        await client.close()


async def test_unix_sockets(tmp_path):
    """An agent can be asked over its Unix socket."""
    path = str(tmp_path / "consul.sock")
    runner = await serve(lambda runner: web.UnixSite(runner, path), hello)
    try:
        reply = await ask(with_address(f"unix://{path}"))
    finally:
        await runner.cleanup()
    assert reply.status == 200
    assert b"/v1/x?dc=a+b" in reply.body or b"/v1/x?dc=a%20b" in reply.body


async def test_nobody_there():
    """An agent that does not exist is unreachable."""
    with pytest.raises(ConsulError) as caught:
        await ask(with_address("unix:///nowhere/consul.sock"))
    assert caught.value.kind == "unreachable"


async def test_nobody_there_is_said_in_the_systems_words():
    """The address stands there once, and nothing of the HTTP library's."""
    with HeldPort() as port, pytest.raises(ConsulError) as caught:
        await ask(with_address(port.address))
    assert str(caught.value) == f"unreachable: http://{port.address}: Connection refused"


async def test_missing_files_are_named_with_their_key(tmp_path):
    """A relative path in lb.yaml could be taken for a key: the key, and the whole path."""
    missing = replace(ConsulSettings(), token_file=tmp_path / "consul.token")
    with pytest.raises(ConsulError) as caught:
        await ask(missing)
    place = f"{tmp_path}/consul.token: No such file or directory"
    assert str(caught.value) == f"misconfigured: consul.token_file {place}"
    with pytest.raises(ConsulError) as caught:
        await ask(replace(missing, from_environment=True))
    assert str(caught.value) == f"misconfigured: CONSUL_HTTP_TOKEN_FILE {place}"
    with pytest.raises(ConsulError, match=rf"consul\.ca_file {tmp_path}/ca\.pem: No such file"):
        await ask(replace(with_address("https://127.0.0.1:1"), ca_file=tmp_path / "ca.pem"))


async def test_large_answers_are_refused(monkeypatch):
    """An answer without an end is cut off at the limit."""
    monkeypatch.setattr(consul_client, "MAX_BODY_BYTES", 1000)

    async def large(request):
        return web.Response(body=b"x" * 5000)

    runner = await serve(lambda runner: web.TCPSite(runner, "127.0.0.1", 0), large)
    try:
        with pytest.raises(ConsulError) as caught:
            await ask(with_address(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    finally:
        await runner.cleanup()
    assert caught.value.kind == "protocol"


async def test_what_is_not_http():
    """An agent that speaks something else is told as such."""

    async def greet(_reader, writer):
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConsulError) as caught:
            await ask(with_address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert caught.value.kind == "unreachable"


async def test_error_texts_are_harmless():
    """Control characters of an answer do not reach a log, and long texts are cut."""

    async def nasty(request):
        return web.Response(status=500, body=b"\x1b[31mred\r\n\x00" + b"x" * 10_000)

    runner = await serve(lambda runner: web.TCPSite(runner, "127.0.0.1", 0), nasty)
    try:
        with pytest.raises(ConsulError) as caught:
            await ask(with_address(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    finally:
        await runner.cleanup()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


async def test_closed_client():
    """A client that was closed fails as an error of ours."""
    client = ConsulClient(ConsulSettings())
    await client.close()
    with pytest.raises(ConsulError):
        await client.get("/v1/x", timeout_s=1.0)


def certificates(folder: Path):
    """Make an authority, a server's and a client's certificate."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    usage = ("-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    openssl(*new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", *usage)
    for name in ("server", "client"):
        san = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *san, *signed)
    openssl(*new, "-subj", "/CN=other", "-keyout", "other.key", "-out", "other.pem", *usage)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A folder with certificates."""
    folder = tmp_path_factory.mktemp("pki")
    certificates(folder)
    return folder


@pytest.fixture
async def tls(pki):
    """The settings for a server that asks for a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    runner = await serve(lambda runner: web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context), hello)
    yield replace(
        with_address(f"https://127.0.0.1:{runner.addresses[0][1]}"),
        ca_file=pki / "ca.pem",
        cert_file=pki / "client.pem",
        key_file=pki / "client.key",
    )
    await runner.cleanup()


@pytest.mark.needs("openssl")
async def test_client_certificates(tls):
    """The authority and the client's certificate of the settings are used."""
    assert (await ask(tls)).status == 200


@pytest.mark.needs("openssl")
async def test_no_client_certificate(tls):
    """Without its certificate a client is not let in."""
    with pytest.raises(ConsulError) as caught:
        await ask(replace(tls, cert_file=None, key_file=None))
    assert caught.value.kind == "unreachable"


@pytest.mark.needs("openssl")
async def test_unverified_keeps_the_client_certificate(tls, pki):
    """Whoever does not verify the agent still shows a certificate."""
    with pytest.raises(ConsulError):
        await ask(replace(tls, ca_file=pki / "other.pem"))
    assert (await ask(replace(tls, ca_file=pki / "other.pem", verify=False))).status == 200


@pytest.mark.needs("openssl")
async def test_certificates_are_read_again(tls, pki, tmp_path):
    """A certificate that is replaced is used from the next connection on; a missing one is named."""
    own = tmp_path / "own.pem"
    client = ConsulClient(replace(tls, ca_file=own))
    try:
        with pytest.raises(ConsulError, match=r"own\.pem") as caught:
            await client.get("/v1/x", timeout_s=10.0)
        assert caught.value.kind == "misconfigured"
        own.write_bytes((pki / "other.pem").read_bytes())
        with pytest.raises(ConsulError, match="unreachable"):
            await client.get("/v1/x", timeout_s=10.0)
        own.write_bytes((pki / "ca.pem").read_bytes())
        assert (await client.get("/v1/x", timeout_s=10.0)).status == 200
    finally:
        await client.close()


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", b"\xff\xfe", b"a\x00b"])
async def test_tokens_that_are_none(tmp_path, content):
    """A token file without a token is an error that names the file, never a header."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConsulError, match="token") as caught:
        await ask(replace(ConsulSettings(), token_file=path))
    assert caught.value.kind == "misconfigured"


async def test_python_consul_is_refused(monkeypatch):
    """Beside python-consul, whose files overwrite py-consul's, nothing runs."""
    await check_library()
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: object())
    with pytest.raises(ConsulError, match="uninstall both"):
        await check_library()
