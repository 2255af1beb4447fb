"""Commands and the daemon, with certificates, at data planes that are behind `https://`."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request

import pytest

from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.authority import Authority
from tests.support.dataplane import DataPlane, command
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("openssl")]


class Site:
    """One data plane whose API wants certificates, and the files that `lb-control` is told of.

    Args:
        folder: For the files.
        api: Where the API is.
    """

    def __init__(self, folder, api) -> None:
        self.folder = folder
        self.api = api
        self.authority = Authority(folder / "first")
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self.install(self.authority)

    @property
    def location(self) -> str:
        """Its URL."""
        return f"https://{self.api.address}"

    @property
    def options(self) -> list[str]:
        """What tells `lb-control` everything."""
        files = ["--ca-file", self.ca, "--cert-file", self.cert, "--key-file", self.key]
        return ["--dataplane", self.location, *map(str, files)]

    def install(self, authority: Authority, *names: str) -> None:
        """Replace our files (all, or those named) by ones of this authority."""
        cert, key = authority.issue("control")
        for path, source in ((self.ca, authority.ca), (self.cert, cert), (self.key, key)):
            if not names or path.name in names:
                beside = path.with_suffix(".new")
                beside.write_bytes(source.read_bytes())
                beside.replace(path)

    def plane(self, authority: Authority, *more: str) -> DataPlane:
        """Return the data plane, which takes only certificates of this authority and shows one of it."""
        cert, key = authority.issue("plane")
        tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(authority.ca)]
        return DataPlane(["--api", self.api.address, *tls, *more])


@pytest.fixture
def site(tmp_path):
    """The files, and the port of the API."""
    with HeldPort() as api:
        yield Site(tmp_path, api)


@pytest.fixture
def listen():
    """An address for the service."""
    with HeldPort() as port:
        yield port.address


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("d"))


def test_every_command_with_certificates(site, control, listen):
    """Plan, apply, drain, explain, ready, history and their kin reach a data plane of several workers."""
    control.write(document(listen, "127.0.0.1:1"))
    with site.plane(site.authority, "--workers", "2") as plane:
        for words in (
            ("plan", control.file),
            ("apply", control.file),
            ("ready",),
            ("drain", "web", "127.0.0.1:1"),
            ("enable", "web", "127.0.0.1:1"),
            ("weight", "web", "127.0.0.1:1", 3),
            ("explain", "web", "--client", "192.0.2.1"),
            ("history",),
        ):
            done = control(*site.options, *words)
            assert done.code == 0, (words, done.out, done.err)
        status = control(*site.options, "status", "--json").json()
        assert (status["converged"], status["dataplanes"][0]["pid"]) == (True, plane.pid)
        assert plane.backend("web", "127.0.0.1:1")["weight"] == 3
        # Whoever has the authority's certificate but none of its own changes nothing.
        control.write(document(listen, "127.0.0.1:2"))
        refused = control("--dataplane", site.location, "--ca-file", site.ca, "apply", control.file)
        assert refused.code == 1
        assert "name a certificate with --cert-file" in " ".join((refused.out + refused.err).split())
        assert plane.get("/v1/snapshot")["services"]["web"]["backends"][0]["id"] == "127.0.0.1:1"


def test_completion_asks_with_certificates(site, control, listen):
    """A TAB finds services at a data plane that wants a certificate, as options or variables name it."""
    with site.plane(site.authority) as plane:
        plane.put_snapshot({"web": {"listen": listen, "backends": ["127.0.0.1:1"]}})
        words = [*site.options, "explain", ""]
        line = " ".join(["lb-control", *words])
        typed = {"COMP_LINE": line}
        asking = {**control.environment, **typed, "_LB_CONTROL_COMPLETE": "bash_complete"}
        done = subprocess.run(
            [command("lb-control")], env=asking, capture_output=True, text=True, check=False, timeout=15
        )
        assert "web" in done.stdout, (done.stdout, done.stderr)


def test_wrong_files_end_a_command_before_it_does_anything(site, control, listen):
    """A plan, an apply and the daemon name file and option, and exit with 2, though nobody listens there."""
    control.write(document(listen, "127.0.0.1:1"))
    other = site.authority.issue("other")[1]
    fits = f"--key-file {other}: the key does not fit the first certificate of --cert-file {site.cert}"
    encrypted = site.authority.encrypt(other)
    target = ["--dataplane", site.location, "--ca-file", site.ca, "--cert-file", site.cert]
    for key, said, words in (
        (other, fits, ("plan", control.file)),
        (other, fits, ("apply", control.file)),
        (other, fits, ("ready",)),
        (encrypted, "the key is encrypted", ("status",)),
        (encrypted, "the key is encrypted", ("run",)),
    ):
        done = control(*target, "--key-file", key, *words)
        assert (done.code, said in done.err) == (2, True), (words, done.out, done.err)


def test_token_beside_tls(site, control, listen, tmp_path):
    """A data plane may want a token over TLS: it is sent, and asked for without one; a bad file is named."""
    file = control.write(document(listen, "127.0.0.1:1"))
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    cert, key = site.authority.issue("plane")
    arguments = ["--api", site.api.address, "--tls-cert", str(cert), "--tls-key", str(key)]
    with DataPlane([*arguments, "--token-file", str(token)]):
        ours = ["--dataplane", site.location, "--ca-file", site.ca]
        done = control(*ours, "--token-file", token, "status", "--json")
        assert done.json()["dataplanes"][0]["reachable"]
        without = control(*ours, "status", "--json").json()["dataplanes"][0]
        assert (without["reachable"], "token" in without["error"]) == (False, True)
        missing = control(*ours, "--token-file", tmp_path / "none", "plan", file)
        assert (missing.code, f"--token-file {tmp_path}/none: No such file" in missing.err) == (2, True)
        # A certificate is no token, and a token is no certificate.
        both = control(*site.options, "--token-file", token, "status", "--json").json()
        assert both["dataplanes"][0]["reachable"]
    with site.plane(site.authority, "--token-file", str(token)):
        done = control(*ours, "--token-file", token, "status", "--json").json()["dataplanes"][0]
        assert (done["reachable"], "--cert-file" in done["error"]) == (False, True)


def test_daemon_takes_renewed_files(site, control, listen):
    """Certificates of another authority are used without a restart; half of a renewal is shown, and disturbs nobody."""
    control.write(document(listen, "127.0.0.1:1"))
    second = Authority(site.folder / "second")
    daemon = Daemon(control)
    daemon.argv[1:1] = site.options
    daemon.argv.append(str(control.file))
    with daemon:
        with site.plane(site.authority) as plane:
            control.wait_status(lambda status: status["converged"] and status["generation"] == 1)
            site.install(second, "cert.pem")
            status = control.wait_status(lambda status: rows(status, "certificates"))
            assert (
                f"--key-file {site.key}: the key does not fit"
                in rows(status, "certificates")[0]["last_error"]
            )
            assert "certificates" in control("status").out
            control.write(document(listen, "127.0.0.1:2"))
            wait_for(lambda: "127.0.0.1:2" in str(plane.get("/v1/snapshot")), "a change with the older files")
            site.install(site.authority)
            control.wait_status(lambda status: not rows(status, "certificates"))
        with site.plane(second):
            status = control.wait_status(lambda status: "verify" in (status["dataplanes"][0]["error"] or ""))
            assert f"checked with --ca-file {site.ca}" in status["dataplanes"][0]["error"]
            site.install(second)
            status = control.wait_status(lambda status: status["converged"])
            assert status["dataplanes"][0]["reachable"]
            assert daemon.poll() is None


def test_daemon_takes_renewed_tokens(site, control, listen, tmp_path):
    """Tokens are exchanged on both sides of the daemon without a restart; what is no token is shown, and changes nothing."""
    theirs, ours, of_page = (tmp_path / name for name in ("theirs", "ours", "page"))
    theirs.write_text("first")
    ours.write_text("first")
    of_page.write_text("page one")
    control.write(document(listen, "127.0.0.1:1"))
    with HeldPort() as http, DataPlane(["--api", site.api.address, "--token-file", str(theirs)]) as plane:
        daemon = Daemon(control, control.file, "--http", http.address, "--http-token-file", of_page)
        daemon.argv[1:1] = ["--dataplane", f"http://{site.api.address}", "--token-file", str(ours)]
        with daemon:
            control.wait_status(lambda status: status["converged"] and status["generation"] == 1)
            theirs.write_text("another one")
            control.wait_status(lambda status: "token" in (status["dataplanes"][0]["error"] or ""))
            ours.write_text("")
            status = control.wait_status(lambda status: rows(status, "token"))
            assert rows(status, "token")[0]["last_error"] == f"--token-file {ours}: is empty"
            ours.write_text("another one")
            control.wait_status(lambda status: status["converged"] and not rows(status, "token"))
            control.write(document(listen, "127.0.0.1:2"))
            wait_for(lambda: "127.0.0.1:2" in str(plane.get("/v1/snapshot")), "a change with the new token")

            assert [page_status(http.address, token) for token in ("page one", "page two")] == [200, 401]
            of_page.write_text("page two!")
            assert [page_status(http.address, token) for token in ("page one", "page two!")] == [401, 200]
            of_page.unlink()
            assert page_status(http.address, "page two!") == 200
            assert (
                f"{of_page}: No such file"
                in rows(control("status", "--json").json(), "http token")[0]["last_error"]
            )


def page_status(address, token):
    """Ask the daemon over TCP for its status; return that of the answer."""
    asked = urllib.request.Request(
        f"http://{address}/v1/status", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - http
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def rows(status, name):
    """Return the rows about something, if there are any."""
    return [each for each in status["sources"] if each["name"] == name]
