"""The benchmark's rows of TLS: the load generator, the server of bulk, the peers' configurations, and one real run of each row."""

import json
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tools.bench import build, parse, plan
from tools.bench.build import compiled
from tools.bench.certificates import make_certificates
from tools.bench.child import Failed
from tools.bench.contenders import CERTIFICATES, CONTENDERS, NAME, launch, tls_name
from tools.bench.memory import MemoryStudy
from tools.bench.servers import SERVERS, echo_servers
from tools.bench.study import Pace, run_study
from tools.bench.targets import TARGETS
from tools.bench.tls import client_hello

pytestmark = [pytest.mark.needs("cc"), pytest.mark.needs("openssl")]

PACE = Pace(1, 0.1, 0.1, 1, 0.1)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def certificates():
    """The pairs of all contenders."""
    make_certificates()


def load(*words):
    """Run the load generator without anybody who waits for its preparations."""
    argv = [compiled("tls_load"), *map(str, words), NAME]
    done = subprocess.run(argv, input="begin\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    ready, line = done.stdout.splitlines()
    assert ready == "ready"
    return line


@contextmanager
def ending_tls(*, tickets=True, key="ecdsa", answer=True):
    """A server that ends TLS and echoes each connection's first message; yields its address and what it has seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{key}.pem")
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without close_notify is an error
    context.num_tickets = 2 if tickets else 0
    seen = []
    context.sni_callback = lambda _end, name, _context: seen.append(name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(client, server_side=True, suppress_ragged_eofs=False) as end:
                    seen.append((end.version(), end.cipher()[0], end.session_reused))
                    message = end.recv(4096)
                    if answer:
                        end.sendall(message)
                    seen.append(end.recv(1))
            except OSError as error:
                seen.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


# -- the load generator -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_a_handshake_in_full_asks_for_one_name_version_and_cipher(key):
    """What is offered is the same for everybody, no session goes on, and connections end with close_notify."""
    with ending_tls(key=key) as (address, seen):
        figures = parse.load(load("full", address, 1, 16, 0.2, 0))
    assert figures["operations"] > 0
    assert (figures["errors"], figures["resumed"]) == (0, 0)
    assert set(seen[:3]) == {NAME, ("TLSv1.3", "TLS_AES_128_GCM_SHA256", False), b""}


def test_all_but_the_first_handshake_are_resumed():
    """The first session is made before the clock runs, so that each measured handshake goes on from a ticket."""
    with ending_tls() as (address, seen):
        figures = parse.load(load("resumed", address, 1, 16, 0.2, 0))
    assert figures["resumed"] == figures["operations"] > 0
    reused = [what[2] for what in seen if isinstance(what, tuple)]
    assert reused[0] is False
    assert set(reused[1:]) == {True}


def test_a_server_without_tickets_has_no_resumed_handshakes():
    """The generator says so instead of measuring others."""
    argv = [compiled("tls_load"), "resumed"]
    with ending_tls(tickets=False) as (address, _):
        done = subprocess.run(
            [*argv, address, "1", "16", "0.1", "0", NAME], input="begin\n", capture_output=True, text=True, check=False
        )  # fmt: skip
    assert done.returncode == 1
    assert "no ticket has come" in done.stderr


def test_a_server_without_tls_is_an_error():
    """Connections that cannot be opened end the generator before the measurement, with a reason."""
    with ExitStack() as stack:
        address = echo_servers(stack)[0]
        done = subprocess.run(
            [compiled("tls_load"), "echo", address, "1", "16", "0.1", "0", NAME],
            input="begin\n", capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "tls_load: before the measurement" in done.stderr


def test_without_its_library_it_says_which_package_is_missing(monkeypatch, tmp_path):
    """A run on a machine without OpenSSL's headers names what would have to be installed."""
    source = tmp_path / "tls_load.c"
    source.write_text('#error "openssl/ssl.h: No such file or directory"\n')
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "CACHE", tmp_path)
    with pytest.raises(Failed, match="libssl-dev is not installed"):
        compiled.__wrapped__("tls_load")


def test_a_program_is_compiled_anew_if_a_header_has_changed(monkeypatch, tmp_path):
    """What programs share is a part of each."""
    (tmp_path / "one.c").write_text('#include "all.h"\nint main(void) { return CODE; }\n')
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "CACHE", tmp_path)
    codes = []
    for code in (3, 4):
        (tmp_path / "all.h").write_text(f"#define CODE {code}\n")
        codes.append(subprocess.run([compiled.__wrapped__("one")], check=False).returncode)
    assert codes == [3, 4]


# -- the server of bulk -------------------------------------------------------------------------------


def test_the_server_of_bulk_sends_or_answers_each_mebibyte():
    """Its first byte says what a connection is for."""
    with ExitStack() as stack:
        host, _, port = SERVERS["stream"](stack)[0].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as down:
            down.sendall(b"d")
            received = 0
            while received < 3 * MIB:
                received += len(down.recv(MIB))
        for sent, answers in ((3 * MIB - 1, 2), (3 * MIB, 3)):
            with socket.create_connection((host, int(port)), timeout=20) as up:
                up.sendall(b"u" * sent)
                up.shutdown(socket.SHUT_WR)
                answered = b""
                while data := up.recv(16):
                    answered += data
                assert answered == bytes(answers)


def test_bulk_is_read_as_gigabytes():
    """What has arrived, in all and per second of the measurement."""
    line = json.dumps({"total": 0, "bytes": 3e9, "bytes_rate": 1.5e9, "errors": 0})
    assert parse.tls_stream(line) == {"work": 3.0, "rate": 1.5, "errors": 0.0}


# -- contenders and rows ------------------------------------------------------------------------------


def test_names_of_contenders_with_tls():
    """The form of ours stays the end of the name, and its environment."""
    assert tls_name("haproxy", "rsa") == "haproxy-rsa"
    assert tls_name("ours-off-interpreted", "ecdsa") == "ours-off-ecdsa-interpreted"
    assert CONTENDERS["ours-off-ecdsa-interpreted"].environment["LIVELB_INTERPRETED"] == "1"


def test_both_runs_make_all_rows_and_the_targets_are_about_them():
    """The short run has each row of the long one, if with fewer contenders; no target is about a row that nobody makes."""
    for studies in (plan.quick(), plan.full()):
        made = {study.name: study for study in studies}
        assert set(plan.GROUPS["tls"]) <= set(made)
        for target in TARGETS:
            if target.study in plan.GROUPS["tls"]:
                study = made[target.study]
                assert {target.who, target.against} <= set(study.contenders)
                assert target.metric in {metric.key for metric in study.metrics}


@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("haproxy", marks=pytest.mark.needs("haproxy")),
        pytest.param("nginx", marks=pytest.mark.needs("nginx")),
        "ours-off",
    ],
)
def test_contenders_end_tls_with_the_certificate_of_the_row(name, key):
    """Whoever is measured shows the same certificate, and relays what is in the TLS."""
    context = ssl.create_default_context(cafile=CERTIFICATES / f"{key}.pem")
    with ExitStack() as stack:
        running = launch(tls_name(name, key), echo_servers(stack), stack)
        host, _, port = running.address.rpartition(":")
        plain = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        with context.wrap_socket(plain, server_hostname=NAME) as client:
            assert client.version() == "TLSv1.3"
            client.sendall(b"hello")
            assert client.recv(16) == b"hello"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("haproxy", marks=pytest.mark.needs("haproxy")),
        pytest.param("nginx", marks=pytest.mark.needs("nginx")),
        "ours-off",
    ],
)
def test_contenders_choose_by_the_name(name):
    """The bench's name reaches its backends, byte for byte; the other one goes elsewhere, where nobody listens."""
    with ExitStack() as stack:
        running = launch(f"{name}-route", echo_servers(stack), stack)
        host, _, port = running.address.rpartition(":")
        mine = client_hello(NAME)
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(mine)
            received = b""
            while len(received) < len(mine):
                data = client.recv(4096)
                assert data, running.child
                received += data
        assert received == mine
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(client_hello(f"other.{NAME}"))
            with suppress(ConnectionResetError):
                assert client.recv(4096) == b""


@pytest.mark.parametrize("who", [pytest.param("haproxy", marks=pytest.mark.needs("haproxy")), "ours"])
@pytest.mark.parametrize("name", plan.GROUPS["tls"])
def test_each_row_has_figures(name, who):
    """A brief run of each row: every metric has a figure, and there are no errors."""
    (study,) = (study for study in plan.quick() if study.name == name)
    study.contenders = [one for one in study.contenders if one.startswith(who)]
    if isinstance(study, MemoryStudy):
        study.connections = 20
    result = run_study(study, PACE, print)
    assert result["missing"] == {}
    for row in result["rows"].values():
        assert row["errors"] == 0
        assert {metric.key for metric in study.metrics} <= set(row)
