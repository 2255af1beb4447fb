"""What a data plane runs when it starts, what it says when it cannot, and what a file may change later, as a program."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess

import pytest

from schemas.http.authorities import trusting
from tests.dataplane.net.through import QUIET
from tests.support import prefork
from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.dataplane import DataPlane, command
from tests.support.ports import HeldPort
from tests.support.process import answers
from tests.support.wait import wait_for


@pytest.fixture
def server():
    """A server that says that it is one."""
    with LineServer("one") as server:
        yield server


@pytest.fixture
def port():
    """A port to listen on."""
    with HeldPort() as port:
        yield port


def run(tmp_path, *arguments, **environment):
    """Start a data plane that is expected to end by itself; return its exit code and its words."""
    done = prefork.run(
        [command("lb-dataplane"), *arguments],
        {
            "PATH": os.environ["PATH"],
            "LB_RUNTIME_DIR": str(tmp_path / "run"),
            "LB_STATE_DIR": str(tmp_path / "state"),
            **environment,
        },
        tmp_path,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


class TestNothing:
    """Nothing to run is no error."""

    def test_it_waits_for_a_snapshot(self, server, port):
        """Generation 0, alive and not ready; LISTEN alone is not listened on."""
        with DataPlane(environment={"LISTEN": port.address}) as plane:
            assert plane.get("/v1/info")["generation"] == 0
            assert plane.request("GET", "/livez")[0] == 200
            status, body = plane.request("GET", "/readyz")
            assert (status, body["code"]) == (503, "not_ready")
            assert not answers(port.address)
            plane.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
            assert plane.request("GET", "/readyz")[0] == 200
            assert ask(port.address) == b"one:hello\n"


class TestEnvironment:
    """The names of the balancer that this one replaces."""

    def test_all_of_them(self, server, port):
        """Each variable ends up in the one service."""
        environment = {
            "LISTEN": port.address,
            "BACKENDS": f"{server.address}, 127.0.0.1:1",
            "LB_MODE": "sticky",
            "POOL_MODE": "preconnect",
            "POOL_SIZE": "7",
            "PROXY_V1": "no",
            "DIAL_TIMEOUT": "1.5s",
            "IDLE_TIMEOUT": "1m30s",
            "IO_TIMEOUT": "3m",
            "HEALTH_EVERY": "0",
        }
        with DataPlane(environment=environment) as plane:
            (service,) = plane.get("/v1/snapshot")["services"].values()
            assert service["listen"] == [port.address]
            assert [backend["address"] for backend in service["backends"]] == [server.address, "127.0.0.1:1"]
            assert (service["mode"], service["pool"]["mode"], service["pool"]["max_idle"]) == (
                "sticky",
                "preconnect",
                7,
            )
            assert service["proxy_protocol"]["send"] == "off"
            assert service["timeouts"]["connect"] == "1500ms"
            assert service["timeouts"]["idle"] == "3m"
            assert service["pool"]["idle_timeout"] == "90s"
            assert service["health"]["active"]["type"] == "none"
            assert ask(port.address) == b"one:hello\n"

    def test_its_exit_code(self, tmp_path):
        """The process ends with 2, and says why."""
        code, words = run(tmp_path, BACKENDS="127.0.0.1:1", LB_MODE="fastest")
        assert code == 2
        assert "LB_MODE" in words


class TestConfig:
    """`--config lb.yaml`."""

    @pytest.fixture
    def file(self, tmp_path):
        """The file."""
        return tmp_path / "lb.yaml"

    def write(self, file, port, *backends, mode="rr"):
        """Write a document."""
        lines = ["version: 1", "services:", "  web:", f"    listen: {port.address}", f"    mode: {mode}"]
        lines += ["    health: {active: {type: none}}", "    backends:"]
        lines += [f"      - {backend}" for backend in backends]
        file.write_text("\n".join(lines) + "\n")

    def test_it_runs(self, file, server, port):
        """The file runs, and a changed one after SIGHUP; one that is wrong changes nothing."""
        self.write(file, port, server.address)
        with DataPlane(["--config", str(file)]) as plane, LineServer("two") as two:
            assert ask(port.address) == b"one:hello\n"
            assert plane.get("/v1/info")["generation"] == 1
            self.write(file, port, two.address)
            plane.send_signal(signal.SIGHUP)
            wait_for(lambda: plane.get("/v1/info")["generation"] == 2, "the new file to run")
            assert ask(port.address) == b"two:hello\n"
            by = plane.get("/v1/info")["pushed_by"]
            assert (by["program"], by["pid"], by["source"]) == ("lb-dataplane --config", plane.pid, str(file))
            self.write(file, port, two.address, mode="fastest")
            plane.send_signal(signal.SIGHUP)
            wait_for(lambda: '"apply_refused"' in plane.output, "the refusal")
            plane.wait_output("line 5")
            assert ask(port.address) == b"two:hello\n"
            file.unlink()
            plane.send_signal(signal.SIGHUP)
            wait_for(lambda: plane.output.count('"apply_refused"') == 2, "the second refusal")
            assert plane.get("/v1/info")["generation"] == 2


class TestSaved:
    """The last good snapshot on disk."""

    def test_it_runs_again(self, server, port):
        """A restart runs what ran last, generation and all; overrides are not part of it."""
        with DataPlane() as plane:
            plane.put_snapshot(
                {"s": {"listen": port.address, "backends": [server.address], **QUIET}}, generation=7
            )
            before = plane.get("/v1/snapshot")
            plane.stop()
            plane.start()
            assert plane.get("/v1/snapshot") == before
            assert ask(port.address) == b"one:hello\n"


class TestConflicts:
    """What somebody else has."""

    def test_a_port_in_use(self, tmp_path, server):
        """Exit 1, and the address is named."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            code, words = run(tmp_path, LISTEN=address, BACKENDS=server.address)
        assert code == 1
        assert f"cannot listen on {address}" in words
        assert "in use" in words.lower()
        assert "stopped" not in words  # it never began

    def test_the_same_name_twice(self):
        """The second one ends with 1 and names the first one's pid; the first one notices nothing."""
        with DataPlane() as plane:
            done = subprocess.run(
                [command("lb-dataplane"), "--name", "test"],
                env=plane._environment,
                capture_output=True,
                text=True,
                timeout=15,
                check=False,
            )
            assert done.returncode == 1
            assert str(plane.pid) in done.stderr
            assert plane.get("/v1/info")["pid"] == plane.pid

    @pytest.mark.parametrize(
        "arguments", [["--name", "../x"], ["--name", ""], ["--log-format", "xml"], ["--api", "127.0.0.1:0"]]
    )
    def test_wrong_arguments(self, tmp_path, arguments):
        """Exit 2, and the argument is named."""
        code, words = run(tmp_path, *arguments)
        assert code == 2
        assert arguments[0] in words


class TestAccessLog:
    """`--access-log off|-|FILE`."""

    def plane(self, target):
        """Return a data plane with this target."""
        return DataPlane(["--access-log", target])

    def test_off(self, server, port):
        """Nothing is written."""
        with self.plane("off") as plane:
            plane.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
            ask(port.address)
            plane.stop()
            assert "bytes_in" not in plane.output

    def test_standard_output(self, server, port):
        """One JSON object a line, for each connection."""
        with self.plane("-") as plane:
            plane.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
            for _ in range(3):
                ask(port.address)
            plane.stop()
            lines = [json.loads(line) for line in plane.output.splitlines() if "bytes_in" in line]
            assert [(line["service"], line["bytes_in"], line["bytes_out"]) for line in lines] == [
                ("s", 6, 10)
            ] * 3

    def test_nobody_reads(self, server, port):
        """A pipe that nobody reads blocks nobody: connections go on, and lines are dropped and counted."""
        with DataPlane(["--access-log", "pipe"]) as plane_to_be:
            plane_to_be.stop()
            (plane_to_be.directory / "pipe").unlink()
            os.mkfifo(plane_to_be.directory / "pipe")
            reader = os.open(plane_to_be.directory / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            plane_to_be.start()
            plane_to_be.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
            for _ in range(400):  # far more than the 64 KiB that a pipe holds
                assert ask(port.address) == b"one:hello\n"
            assert plane_to_be.request("GET", "/livez")[0] == 200
            os.close(reader)
            assert ask(port.address) == b"one:hello\n"

    def test_a_pipe_that_nobody_has_opened(self, server, port):
        """A pipe without any reader does not keep the process from starting, nor clients from being served."""
        with DataPlane(["--access-log", "pipe"]) as plane:
            plane.stop()
            (plane.directory / "pipe").unlink()
            os.mkfifo(plane.directory / "pipe")
            plane.start()
            plane.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
            for _ in range(10):
                assert ask(port.address) == b"one:hello\n"


def old_request(port, path, headers=""):
    """Make a request of HTTP/1.0 without a Host, as health checks do; return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n{headers}\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, a certificate of it (server), and one that signed itself (stranger), in one folder."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl(*new, "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(*new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "server.pem"]
    openssl("x509", "-req", "-in", "server.csr", *signed)
    return folder


class TestTcpApi:
    """`--api HOST:PORT`: with a token or client certificates, or not at all."""

    def call(self, address, path="/v1/info", method="GET", **headers):
        """Make one call; return the status and the body."""
        host, _, number = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(number), timeout=10)
        try:
            skip = "Host" in headers
            connection.putrequest(method, path, skip_host=skip)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", "0")
            connection.endheaders()
            response = connection.getresponse()
            text = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(text) if is_json else text
        finally:
            connection.close()

    @pytest.fixture
    def plane(self, port, tmp_path):
        """A data plane with a TCP API."""
        token = tmp_path / "token"
        token.write_text("secret\n")
        with DataPlane(["--api", port.address, "--token-file", str(token)]) as plane:
            yield plane

    def test_the_token(self, plane, port):
        """With the token and a Host of ours everything, without a token only whether the process lives."""
        good = {"Authorization": "Bearer secret"}
        assert self.call(port.address, **good)[0] == 200
        for bad in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer s\xe9"},
        ):
            status, body = self.call(port.address, **bad)
            assert (status, body["code"]) == (401, "no_token")
        assert self.call(port.address, "/livez")[0] == 200
        assert self.call(port.address, "/metrics")[0] == 401
        assert "secret" not in plane.output

        # a Host header that is not ours is refused: a name that an attacker has pointed here
        for host in (port.address, f"localhost:{port.port}"):
            assert self.call(port.address, Host=host, **good)[0] == 200
        status, body = self.call(port.address, Host="evil.example", **good)
        assert (status, body["code"]) == (403, "foreign_host")

    def test_everywhere(self, tmp_path):
        """On every address a literal one leads there, and no name does: somebody's DNS may have turned it to us."""
        token = tmp_path / "token"
        token.write_text("secret")
        good = {"Authorization": "Bearer secret"}
        with HeldPort(host="0.0.0.0") as port, DataPlane(["--api", port.address, "--token-file", str(token)]):
            here = f"127.0.0.1:{port.port}"
            assert self.call(here, **good)[0] == 200
            assert self.call(here, Host=f"192.0.2.1:{port.port}", **good)[0] == 200
            assert self.call(here, Host="127.0.0.1:1", **good)[0] == 200
            for host in ("lb-1.example", f"lb-1.example:{port.port}"):
                assert self.call(here, Host=host, **good)[1]["code"] == "foreign_host"

    @pytest.mark.parametrize("bound", ["0.0.0.0", "127.0.0.1"])
    def test_without_a_host(self, tmp_path, bound):
        """A health check of HTTP/1.0, as HAProxy's httpchk, names no Host; it is no browser, and is answered."""
        token = tmp_path / "token"
        token.write_text("secret")
        with HeldPort(host=bound) as port, HeldPort() as other:
            listen = {"LISTEN": other.address, "BACKENDS": "127.0.0.1:1"}
            arguments = ["--api", port.address, "--token-file", str(token)]
            with DataPlane(arguments, environment=listen):
                assert old_request(port.port, "/readyz").startswith(b"HTTP/1.0 200 ")
                assert old_request(port.port, "/livez").startswith(b"HTTP/1.0 200 ")
                assert old_request(port.port, "/metrics").startswith(b"HTTP/1.0 401 ")
                allowed = old_request(port.port, "/metrics", "Authorization: Bearer secret\r\n")
                assert allowed.startswith(b"HTTP/1.0 200 ")

    def test_no_token_no_api(self, tmp_path, port):
        """Without a token or client certificates it does not start: exit 2."""
        code, words = run(tmp_path, "--api", port.address)
        assert code == 2
        assert "--token-file" in words
        empty = tmp_path / "empty"
        empty.write_text("\n")
        assert run(tmp_path, "--api", port.address, "--token-file", str(empty))[0] == 2
        assert run(tmp_path, "--api", port.address, "--token-file", str(tmp_path / "none"))[0] == 2

    @pytest.mark.parametrize("workers", [1, 2])
    def test_metrics_alone(self, port, workers):
        """`--metrics` serves numbers and readiness without a token, refuses a foreign Host, and has no other path."""
        with DataPlane(["--metrics", port.address, "--workers", str(workers)]):
            status, text = self.call(port.address, "/metrics")
            assert status == 200
            assert b"lb_uptime_seconds " in text
            assert self.call(port.address, "/livez")[0] == 200
            assert self.call(port.address, "/readyz")[1]["code"] == "not_ready"  # generation 0
            assert self.call(port.address, "/metrics", Host="evil.example")[1]["code"] == "foreign_host"
            for path in ("/v1/info", "/v1/status", "/v1/snapshot", "/v1/events"):
                assert self.call(port.address, path)[0] == 404
            assert self.call(port.address, "/v1/snapshot", "PUT")[0] == 404
            assert self.call(port.address, "/metrics", "POST")[0] == 405

    def test_metrics_everywhere(self):
        """On an address that others reach, any Host will do: they call this machine by names it does not know."""
        with HeldPort(host="0.0.0.0") as port, DataPlane(["--metrics", port.address]):
            here = f"127.0.0.1:{port.port}"
            assert self.call(here, "/metrics", Host="lb-1.example")[0] == 200

    @pytest.mark.parametrize("workers", [1, 2])
    def test_metrics_over_a_takeover(self, tmp_path, port, workers):
        """Who takes over answers on the same address, and somebody else of another name gets it not."""
        with DataPlane(["--metrics", port.address, "--workers", str(workers)]) as plane:
            code, words = run(
                tmp_path, "--metrics", port.address, "--workers", str(workers), "--name", "other"
            )
            assert code == 1
            assert "Address already in use" in words
            arguments = ["--metrics", port.address, "--workers", "2", "--takeover"]
            plane.put_snapshot({})
            with DataPlane(arguments, name=plane.name, runtime_dir=plane.runtime_dir):
                plane.wait()
                assert b"\nlb_workers 2.0" in self.call(port.address, "/metrics")[1]

    @pytest.mark.parametrize("address", ["9464", ":9464", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536"])
    def test_metrics_where(self, tmp_path, address):
        """What is no HOST:PORT is refused with exit 2."""
        code, words = run(tmp_path, "--metrics", address)
        assert code == 2
        assert "is not HOST:PORT" in words

    @pytest.mark.needs("openssl")
    def test_client_certificates(self, tmp_path, port, certificates):
        """With `--tls-client-ca` a certificate of that authority is enough, and nothing else is."""
        arguments = ["--api", port.address, "--tls-client-ca", str(certificates / "ca.pem")]
        arguments += ["--tls-cert", str(certificates / "server.pem")]
        arguments += ["--tls-key", str(certificates / "server.key")]

        def call(name):
            context = trusting(ssl.Purpose.SERVER_AUTH, certificates / "ca.pem")
            context.check_hostname = False
            if name:
                context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
            connection = http.client.HTTPSConnection(port.host, port.port, timeout=10, context=context)
            try:
                connection.request("GET", "/v1/info")
                return connection.getresponse().status
            finally:
                connection.close()

        with DataPlane(arguments):
            assert call("server") == 200
            for other in (None, "stranger"):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    call(other)
        code, words = run(tmp_path, *arguments[:4])
        assert code == 2
        assert "--tls-cert" in words

    @pytest.mark.needs("openssl")
    @pytest.mark.parametrize(
        ("option", "file", "why"),
        [
            ("--token-file", "none", "No such file or directory"),
            ("--token-file", "empty", "is empty"),
            ("--tls-cert", "none", "No such file or directory"),
            ("--tls-key", "none", "No such file or directory"),
            ("--tls-client-ca", "none", "No such file or directory"),
            ("--tls-client-ca", "empty", ""),
        ],
    )
    def test_credentials_that_cannot_be_used(self, tmp_path, port, certificates, option, file, why):
        """Exit 2, and the message names the option, the file and the reason."""
        (tmp_path / "empty").touch()
        (tmp_path / "token").write_text("secret")
        files = {
            "--token-file": tmp_path / "token",
            "--tls-cert": certificates / "server.pem",
            "--tls-key": certificates / "server.key",
            option: tmp_path / file,
        }
        arguments = [word for name, path in files.items() for word in (name, str(path))]
        code, words = run(tmp_path, "--api", port.address, *arguments)
        assert code == 2
        assert f"Error: {option} {tmp_path / file}: {why}" in words
