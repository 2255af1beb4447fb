"""TLS of real clients ends here: openssl, curl, HAProxy and nginx in front, and who looks for weak spots."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dataplane.net.through import through
from tests.support.backends import LineServer, Recorder
from tests.support.clients import ask, dial
from tests.support.dataplane import DataPlane
from tests.support.openssl import SClient, ask_over_tls
from tests.support.programs import Haproxy, Nginx, require
from tests.support.tls import CertificateAuthority

pytestmark = [pytest.mark.needs("openssl")]

WEB = "web.example.com"


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom clients trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> CertificateAuthority:
    """Whom nobody trusts."""
    return CertificateAuthority(tmp_path_factory.mktemp("stranger"), "stranger")


def ended(*pairs, **more):
    """Return the section `tls` with these certificates."""
    return {"certificates": [pair.spec for pair in pairs], **more}


def curl(service, authority, *arguments, name=WEB, path="/"):
    """Ask for a page under a name, and return the body."""
    host, _, port = service.address.rpartition(":")
    argv = [require("curl"), "-sS", "--cacert", str(authority.ca), "--max-time", "30", *arguments]
    argv += ["--resolve", f"{name}:{port}:{host}", f"https://{name}:{port}{path}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_all(client):
    """Read to the end, whichever that is."""
    data = b""
    try:
        while piece := client.recv(4096):
            data += piece
    except ConnectionResetError:
        pass
    return data


class TestVersions:
    """What is spoken, and what is not."""

    @pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
    def test_both(self, plane, authority, version):
        """1.2 and 1.3 are spoken unless a service says otherwise; the backend sees plain bytes."""
        option = "-" + version.lower().replace("v", "").replace(".", "_")
        with (
            LineServer("one") as one,
            through(plane, one.address, tls=ended(authority.issue(WEB))) as service,
        ):
            said = ask_over_tls(service.address, authority.ca, option, name=WEB)
            assert f"{version}, Cipher is" in said
            assert "one:hello" in said
            service.wait_closed(client_closed=1)

    @pytest.mark.parametrize(("minimum", "option"), [("1.2", "-tls1_1"), ("1.3", "-tls1_2")])
    def test_too_old(self, plane, authority, minimum, option):
        """A client that speaks no version new enough is told so, and no backend is called."""
        tls = ended(authority.issue(WEB), min_version=minimum)
        with LineServer("one") as one, through(plane, one.address, tls=tls) as service:
            weak = [option, "-cipher", "DEFAULT:@SECLEVEL=0"]
            with SClient(service.address, authority.ca, *weak, name=WEB) as client:
                assert "alert protocol version" in client.wait_end()
                assert client.returncode != 0
            service.wait_closed(tls_failed=1)
            assert one.accepted == 0

    def test_not_tls(self, plane, authority):
        """Who speaks something else is closed, and no backend is called."""
        with (
            LineServer("one") as one,
            through(plane, one.address, tls=ended(authority.issue(WEB))) as service,
        ):
            with dial(service.address) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert b"one:" not in read_all(client)
            status = service.wait(lambda now: now["active"] == 0 and now["totals"]["connections"])
            assert set(status["totals"]["closed"]) <= {"tls_failed", "not_tls"}
            assert one.accepted == 0


class TestCertificates:
    """Who is shown to whom."""

    def test_by_name(self, plane, authority):
        """Each name has its certificate, a wildcard one label, and whoever asks for none or another gets the first."""
        pairs = [
            authority.issue("first.example.com"),
            authority.issue(WEB),
            authority.issue("*.db.example.com"),
        ]
        with LineServer("one") as one, through(plane, one.address, tls=ended(*pairs)) as service:
            for name in ("first.example.com", WEB, "a.db.example.com"):
                assert "one:hello" in ask_over_tls(service.address, authority.ca, name=name)
            for name in (None, "else.example.com", "a.b.db.example.com"):
                with SClient(service.address, authority.ca, name=name, answers="first.example.com") as client:
                    client.say("hello", "one:hello")

    def test_ecdsa_and_rsa(self, plane, authority):
        """Of one name there may be both: who takes ECDSA gets that, who takes RSA only gets RSA."""
        pairs = [authority.issue(WEB, algorithm="rsa"), authority.issue(WEB)]
        with LineServer("one") as one, through(plane, one.address, tls=ended(*pairs)) as service:
            said = ask_over_tls(service.address, authority.ca, name=WEB)
            assert "Peer signature type: ECDSA" in said
            only = ["-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"]
            for version in ("-tls1_2", "-tls1_3"):
                said = ask_over_tls(service.address, authority.ca, version, *only, name=WEB)
                assert "Peer signature type: RSA-PSS" in said

    def test_of_the_client(self, plane, authority, stranger):
        """With client_ca, a client of that authority is let in; one of another, or with nothing, is not."""
        own, other = authority.issue("app.example.com"), stranger.issue("app.example.com")
        tls = ended(authority.issue(WEB), client_ca=str(authority.ca))
        with LineServer("one") as one, through(plane, one.address, tls=tls) as service:
            shown = ["-cert", str(own.cert), "-key", str(own.key)]
            for version in ("-tls1_2", "-tls1_3"):
                assert "one:hello" in ask_over_tls(service.address, authority.ca, version, *shown, name=WEB)
            service.wait_closed(client_closed=2)
            refused = 0
            for version in ("-tls1_2", "-tls1_3"):
                for cert in ([], ["-cert", str(other.cert), "-key", str(other.key)]):
                    with SClient(service.address, authority.ca, version, *cert, name=WEB) as client:
                        said = client.wait_end()
                        assert re.search("alert (unknown ca|certificate required|handshake failure)", said), (
                            said
                        )
                    refused += 1
                    service.wait_closed(client_closed=2, tls_failed=refused)
            assert one.accepted == 2


class TestAlpn:
    """What is spoken inside."""

    def test_our_order(self, plane, authority):
        """The first of ours that the client offers is taken; with none in common, none or nobody."""
        tls = ended(authority.issue(WEB), alpn=["h2", "http/1.1"])
        with LineServer("one") as one, through(plane, one.address, tls=tls) as service:
            said = ask_over_tls(service.address, authority.ca, "-alpn", "http/1.1,h2", name=WEB)
            assert "ALPN protocol: h2" in said
            said = ask_over_tls(service.address, authority.ca, "-alpn", "http/1.1", name=WEB)
            assert "ALPN protocol: http/1.1" in said
            said = ask_over_tls(service.address, authority.ca, name=WEB)
            assert "No ALPN negotiated" in said

    @pytest.mark.needs("curl", "nginx")
    def test_http_1_and_2(self, plane, authority):
        """Curl speaks HTTP/1.1 and HTTP/2 with nginx behind, which sees no TLS."""
        version = ["-w", " %{http_version}"]
        pair = authority.issue(WEB)
        server = 'return 200 "$server_protocol $https";'
        with (
            Nginx(server) as nginx,
            through(plane, nginx.address, tls=ended(pair, alpn=["http/1.1"])) as service,
        ):
            assert curl(service, authority, *version) == "HTTP/1.1  1.1"
        with (
            Nginx(server, listen_options="http2") as nginx,
            through(plane, nginx.address, tls=ended(pair, alpn=["h2"])) as service,
        ):
            assert curl(service, authority, *version) == "HTTP/2.0  2"


@pytest.mark.needs("curl", "nginx")
def test_much_both_ways(plane, authority, tmp_path):
    """What curl loads up is loaded down again, byte by byte the same."""
    stored = tmp_path / "stored"
    stored.mkdir()
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(8_000_000))
    server = f"root {stored}; client_max_body_size 0; dav_methods PUT;"
    with Nginx(server) as nginx, through(plane, nginx.address, tls=ended(authority.issue(WEB))) as service:
        for version in ("--tlsv1.3", "--tls-max 1.2"):
            name = version[-3:]
            got = tmp_path / name
            curl(service, authority, *version.split(), "-T", str(sent), path=f"/{name}")
            curl(service, authority, *version.split(), "-o", str(got), path=f"/{name}")
            assert got.read_bytes() == sent.read_bytes()
        service.wait_closed(client_closed=4)


class TestResumption:
    """Who comes again need not do everything again, and is never refused for trying."""

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_one_worker(self, plane, authority, tmp_path, version):
        """A session is resumed, and the answer is the same."""
        kept = tmp_path / "session"
        with (
            LineServer("one") as one,
            through(plane, one.address, tls=ended(authority.issue(WEB))) as service,
        ):
            said = ask_over_tls(service.address, authority.ca, version, "-sess_out", str(kept), name=WEB)
            assert "New, TLSv1" in said
            said = ask_over_tls(service.address, authority.ca, version, "-sess_in", str(kept), name=WEB)
            assert "Reused, TLSv1" in said
            assert "one:hello" in said

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_two_workers(self, authority, tmp_path, version):
        """With two workers the session is taken by each, or a new one is made; both serve."""
        kept = tmp_path / "session"
        with (
            LineServer("one") as one,
            DataPlane(["--workers", "2"]) as plane,
            through(plane, one.address, tls=ended(authority.issue(WEB))) as service,
        ):
            ask_over_tls(service.address, authority.ca, version, "-sess_out", str(kept), name=WEB)
            said = [
                ask_over_tls(service.address, authority.ca, version, "-sess_in", str(kept), name=WEB)
                for _ in range(10)
            ]
            assert all("one:hello" in one for one in said)
            service.wait_closed(client_closed=11)


class TestInFront:
    """Other balancers begin TLS to us."""

    @pytest.mark.needs("haproxy")
    @pytest.mark.parametrize("header", ["", "send-proxy", "send-proxy-v2"])
    def test_haproxy(self, plane, authority, header):
        """HAProxy verifies our certificate; its PROXY header comes before TLS."""
        accepting = {"accept": "required", "trusted": ["127.0.0.0/8"]} if header else {}
        options = f"ssl verify required ca-file {authority.ca} sni str({WEB}) verifyhost {WEB} {header}"
        with (
            LineServer("one") as one,
            through(plane, one.address, tls=ended(authority.issue(WEB)), proxy_protocol=accepting) as service,
            Haproxy([service.address], server_options=options) as haproxy,
        ):
            assert ask(haproxy.address) == b"one:hello\n"

    @pytest.mark.needs("nginx")
    def test_nginx(self, plane, authority):
        """Nginx verifies our certificate, and its requests come to the backend as they are."""
        server = f"""location / {{
            proxy_pass https://ADDRESS;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {authority.ca};
            proxy_ssl_name {WEB};
            proxy_ssl_server_name on;
        }}"""
        with (
            Nginx('return 200 "behind";') as behind,
            through(plane, behind.address, tls=ended(authority.issue(WEB))) as service,
            Nginx(server.replace("ADDRESS", service.address)) as front,
            dial(front.address) as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_all(client).endswith(b"\r\n\r\nbehind")

    @pytest.mark.needs("haproxy")
    def test_the_client_behind(self, plane, authority):
        """What HAProxy says of its client goes on to the backend, where TLS ended in between."""
        trusting = {"accept": "required", "trusted": ["127.0.0.0/8"], "send": "v1"}
        options = f"ssl verify required ca-file {authority.ca} sni str({WEB}) send-proxy-v2"
        with (
            Recorder() as backend,
            through(
                plane, backend.address, tls=ended(authority.issue(WEB)), proxy_protocol=trusting
            ) as service,
            Haproxy([service.address], server_options=options) as haproxy,
            dial(haproxy.address, source="127.0.0.7") as client,
        ):
            client.sendall(b"hello")
            near, far = client.getsockname(), client.getpeername()
            expected = f"PROXY TCP4 {near[0]} {far[0]} {near[1]} {far[1]}\r\n".encode() + b"hello"
            backend.wait_until(lambda: expected in map(bytes, backend.streams), "the client's header")


TOLERATED = {
    "certificate_path_validation": "",
    "tls_curves": "TLS curves {'X448', 'secp521r1'} are supported, but should be rejected.",
}
"""What sslyze finds by Mozilla's intermediate configuration that is no weakness: the authority is the tests' own, and two
curves are stronger than the ones named there (Python's `ssl` can leave them out from 3.15 on)."""
ATTACKS = {
    "tls_compression": {"supports_compression": False},
    "openssl_ccs_injection": {"is_vulnerable_to_ccs_injection": False},
    "tls_fallback_scsv": {"supports_fallback_scsv": True},
    "heartbleed": {"is_vulnerable_to_heartbleed": False},
    "robot": {"robot_result": "NOT_VULNERABLE_RSA_NOT_SUPPORTED"},
    "session_renegotiation": {
        "supports_secure_renegotiation": True,
        "is_vulnerable_to_client_renegotiation_dos": False,
        "client_renegotiations_success_count": 0,
    },
    "tls_extended_master_secret": {"supports_ems_extension": True},
}
"""What sslyze tries, and what has to come of it."""
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")


@pytest.mark.needs("sslyze")
def test_nothing_weak_by_default(plane, authority, tmp_path):
    """Sslyze finds nothing weak in a service that says nothing but its certificates."""
    pairs = [authority.issue(WEB, algorithm=algorithm) for algorithm in ("ecdsa", "rsa")]
    with LineServer("one") as one, through(plane, one.address, tls=ended(*pairs)) as service:
        host, _, port = service.address.rpartition(":")
        found = tmp_path / "found.json"
        argv = [sys.executable, "-m", "sslyze", "--json_out", str(found), f"{WEB}:{port}{{{host}}}"]
        beside = Path(require("sslyze")).parents[1]
        environment = {**os.environ, "PYTHONPATH": str(beside)}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        (server,) = json.loads(found.read_text())["server_scan_results"]
        results = {name: one["result"] for name, one in server["scan_result"].items() if one["result"]}
        for name, wanted in ATTACKS.items():
            assert wanted.items() <= results[name].items(), (name, results[name])
        for version in OLD:
            assert not results[f"{version}_cipher_suites"]["is_tls_version_supported"], version
        for version in ("tls_1_2", "tls_1_3"):
            assert results[f"{version}_cipher_suites"]["accepted_cipher_suites"], version
        judged = dict(re.findall(r"^ +\* (\w+): (.*)$", done.stdout, re.MULTILINE))
        assert "certificate_path_validation" in judged, done.stdout
        weak = {
            check: finding
            for check, finding in judged.items()
            if not (check in TOLERATED and _same_words(finding, TOLERATED[check]))
        }
        assert not weak


def _same_words(finding, tolerated):
    """Tell whether a finding is the tolerated one; sets come in any order, and empty tolerates all."""
    return not tolerated or sorted(re.findall(r"\w+", finding)) == sorted(re.findall(r"\w+", tolerated))
