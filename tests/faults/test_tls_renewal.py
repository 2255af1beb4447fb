"""Certificates are renewed under 200 handshakes a second; not one may fail, and nobody who is there may notice."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import LineServer
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.tls import CertificateAuthority, Pair
from tests.support.wait import DEADLINE_S, wait_for

RATE = 200.0
HANDSHAKES = 1000
THREADS = 4


class Load:
    """Clients in an open loop, a bounded number; each verifies what it is shown, has a line answered, and leaves.

    Args:
        port: Where to.
        context: Of each client.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.failed: list[str] = []
        self.serials: list[str] = []
        """Of the certificates that were shown, in the order of the handshakes' ends."""
        self._port = port
        self._context = context
        self._lock = threading.Lock()
        self._next = 0
        self._begun = time.monotonic()
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                number = self._next
                self._next += 1
            if number >= HANDSHAKES:
                return
            time.sleep(max(0.0, self._begun + number / RATE - time.monotonic()))  # an open loop's pace
            try:
                self.serials.append(visit(self._port, self._context))
            except (OSError, AssertionError) as error:
                self.failed.append(f"{number}: {error!r}")

    def wait(self) -> None:
        """Wait until all are done."""
        for thread in self._threads:
            thread.join()


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a client after its handshake."""
    plain = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    return context.wrap_socket(plain, server_hostname="a.example")


def said(client: ssl.SSLSocket, line: bytes) -> bytes:
    """Return the answer to a line."""
    client.sendall(line + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        piece = client.recv(100)
        assert piece, "an end instead of an answer"
        answer += piece
    return answer


def visit(port: int, context: ssl.SSLContext) -> str:
    """Do what a client does; return the number of the certificate that it was shown."""
    with connected(port, context) as client:
        assert said(client, b"x") == b"one:x\n"
        return serial(client)


def serial(client: ssl.SSLSocket) -> str:
    """Return the number of the certificate that a client was shown."""
    certificate: Any = client.getpeercert()
    return str(certificate["serialNumber"])


def number_of(pair: Pair) -> str:
    """Return the number of a certificate, as clients see it."""
    found: Any = ssl._ssl._test_decode_cert(str(pair.cert))  # type: ignore[attr-defined]
    return str(found["serialNumber"])


class Site:
    """A data plane that ends TLS, with a backend, and the pair that it uses."""

    def __init__(self, stack: ExitStack, folder: Path, workers: str) -> None:
        self.authority = CertificateAuthority(folder)
        self.pair = self.authority.issue("a.example")
        self.context = self.authority.client_context()
        backend = stack.enter_context(LineServer("one"))
        held = stack.enter_context(HeldPort())
        self.port = held.port
        self.plane = stack.enter_context(DataPlane(["--workers", workers]))
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": held.address,
                    "backends": [backend.address],
                    "tls": {"certificates": [self.pair.spec]},
                }
            }
        )

    def new(self, name: str) -> Pair:
        """Return another pair for the same name, not yet in place."""
        return self.authority.issue("a.example", file=name)

    def certificates(self) -> list[dict[str, Any]]:
        """Return what status says of certificates."""
        found: list[dict[str, Any]] = self.plane.status()["services"]["web"]["certificates"]
        return found

    def wait_shown(self, pair: Pair) -> None:
        """Wait until every worker shows a certificate: 16 clients in a row are shown it."""
        number = number_of(pair)
        wait_for(
            lambda: all(visit(self.port, self.context) == number for _ in range(16)), "the new certificate"
        )


@pytest.fixture
def site(workers: str, tmp_path: Path) -> Iterator[Site]:
    """One of each kind."""
    with ExitStack() as stack:
        yield Site(stack, tmp_path / "ca", workers)


@pytest.mark.timeout(120)
def test_renewals_under_load_lose_no_handshake(site: Site) -> None:
    """Three renewals, one of them with the key long before its certificate, and one that is no good, which nobody is shown."""
    old = number_of(site.pair)
    generation = site.plane.status()["generation"]
    load = Load(site.port, site.context)
    with connected(site.port, site.context) as stays:
        assert said(stays, b"1") == b"one:1\n"
        first, second, third = (site.new(name) for name in ("first", "second", "third"))
        first.put(site.pair.cert, site.pair.key)
        site.wait_shown(first)
        site.pair.key.write_bytes(second.key.read_bytes())  # in place, and alone
        wait_for(lambda: "certificate_not_renewed" in site.plane.output, "trouble to be told")
        assert visit(site.port, site.context) == number_of(first)
        (seen,) = site.certificates()
        assert seen["not_renewed"] == f"{site.pair.key} is not the key of {site.pair.cert}"
        assert seen["not_renewed_since"] is not None
        assert site.plane.metrics().values("lb_certificate_not_renewed") == [1]
        second.put(site.pair.cert, site.pair.key)
        site.wait_shown(second)
        wait_for(lambda: not site.certificates()[0]["not_renewed"], "it to be in order")
        site.authority.expired("a.example").put(site.pair.cert, site.pair.key)
        wait_for(lambda: "ended at" in site.plane.output, "the end to be told")
        assert visit(site.port, site.context) == number_of(second)
        third.put(site.pair.cert, site.pair.key)
        site.wait_shown(third)
        load.wait()
        assert load.failed == []
        assert len(load.serials) == HANDSHAKES
        good = {old, *map(number_of, (first, second, third))}
        assert set(load.serials) <= good
        assert len(set(load.serials)) > 1
        assert (serial(stays), said(stays, b"2")) == (old, b"one:2\n")
    wait_for(lambda: not site.certificates()[0]["not_renewed"], "every process to have the last one")
    (seen,) = site.certificates()
    assert (seen["place"], seen["cert"]) == ("tls.certificates[0]", str(site.pair.cert))
    assert (seen["names"], seen["key_type"], seen["key_readable_by_all"]) == (["a.example"], "ecdsa", False)
    (ends,) = site.plane.metrics().values("lb_certificate_expires_seconds")
    assert ends == datetime.fromisoformat(seen["ends"]).timestamp()
    assert site.plane.status()["generation"] == generation


def test_links_that_lead_elsewhere_are_followed(workers: str, tmp_path: Path) -> None:
    """As certbot writes them, and Kubernetes its secrets: the folder is a link, which is replaced."""
    with ExitStack() as stack:
        site = Site(stack, tmp_path / "ca", workers)
        folders = [tmp_path / name for name in ("1", "2")]
        for folder in folders:
            folder.mkdir()
            site.new(folder.name).put(folder / "tls.crt", folder / "tls.key")
        link = tmp_path / "data"
        link.symlink_to("1")
        service = site.plane.get("/v1/snapshot")["services"]["web"]
        pair = {"cert": str(link / "tls.crt"), "key": str(link / "tls.key")}
        site.plane.put_snapshot({"web": service | {"tls": {"certificates": [pair]}}})
        site.wait_shown(Pair(folders[0] / "tls.crt", folders[0] / "tls.key"))
        beside = tmp_path / "beside"
        beside.symlink_to("2")
        beside.replace(link)
        site.wait_shown(Pair(folders[1] / "tls.crt", folders[1] / "tls.key"))


@pytest.mark.timeout(120)
def test_restarts_and_takeovers_lose_no_handshake(tmp_path: Path) -> None:
    """A worker that is replaced, and a process that takes over, read the files by themselves, before they accept."""
    with ExitStack() as stack:
        site = Site(stack, tmp_path / "ca", "2")
        load = Load(site.port, site.context)
        status, body = site.plane.request("POST", "/v1/restart")
        assert status == 200, body
        successor = DataPlane(["--workers", "2", "--takeover"], runtime_dir=site.plane.runtime_dir)
        stack.callback(successor.close)
        successor.start()
        load.wait()
        assert load.failed == []
        assert set(load.serials) == {number_of(site.pair)}


def test_a_worker_that_cannot_read_the_files_costs_none_that_can(tmp_path: Path) -> None:
    """A restart in the middle of a renewal is refused with the reason, and the workers that are there serve on."""
    with ExitStack() as stack:
        site = Site(stack, tmp_path / "ca", "2")
        key = site.pair.key.read_bytes()
        site.pair.key.write_bytes(site.new("other").key.read_bytes())
        status, body = site.plane.request("POST", "/v1/restart")
        assert (status, body["code"]) == (503, "restart_failed")
        place = "services.web.tls.certificates[0].key"
        assert f"{place}: {site.pair.key} is not the key of {site.pair.cert}" in body["message"]
        assert visit(site.port, site.context) == number_of(site.pair)
        site.pair.key.write_bytes(key)
        status, body = site.plane.request("POST", "/v1/restart")
        assert status == 200, body
        assert visit(site.port, site.context) == number_of(site.pair)


def test_what_was_saved_is_served_again(workers: str, tmp_path: Path) -> None:
    """After a stop: the snapshot has the paths, and nothing of what is in the files."""
    with ExitStack() as stack:
        site = Site(stack, tmp_path / "ca", workers)
        site.plane.stop()
        (saved,) = site.plane.state_dir.glob("*.json")
        assert str(site.pair.key) in saved.read_text()
        assert site.pair.key.read_text().splitlines()[1] not in saved.read_text()
        site.plane.start()
        assert visit(site.port, site.context) == number_of(site.pair)
