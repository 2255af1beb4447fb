"""TLS to backends as clients meet it: dialled or pooled, accepted or not, with what a backend says on its own."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from dataplane.core.outlier import Evidence
from tests.dataplane.net.rig import Rig, rigged
from tests.support.clients import reset
from tests.support.tls_ends import Certificates, PlainBackendTls, TlsEnd, TlsSocket

QUIET = {"idle_timeout": "0s", "max_age": "0s"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return what backends have, and the balancer trusts."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@contextmanager
def over_tls(
    certificates: Certificates, *, backends: int = 1, **options: Any
) -> Iterator[tuple[Rig, PlainBackendTls]]:
    """Run a rig whose service begins TLS to its backends."""
    tls = PlainBackendTls(certificates.client())
    with rigged(backends=backends) as rig:
        rig.service.backend_tls = tls
        rig.service.spec = rig.spec(**{**options, "pool": {"mode": "off"}})
        rig.service.spread_tls()
        rig.configure(**options)
        yield rig, tls


def accept(rig: Rig, context: ssl.SSLContext, index: int = 0) -> TlsSocket:
    """Return the next connection of a backend, whose handshake has not begun."""
    return TlsSocket(rig.until, rig.ends[index].accept(), TlsEnd(context))


def exchange(rig: Rig, client: socket.socket, server: TlsSocket, text: bytes = b"text") -> None:
    """Let a client ask and be answered."""
    client.sendall(b"?" + text)
    assert server.receive(len(text) + 1) == b"?" + text
    server.send(b"!" + text)
    assert rig.receive(client, len(text) + 1) == b"!" + text


def older(certificates: Certificates) -> ssl.SSLContext:
    """Return a server's context with TLS 1.2, whose handshake it ends itself."""
    context = certificates.server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def greet_at_once(server: TlsSocket, greeting: bytes) -> None:
    """Do a handshake, and send a greeting in one piece with its end."""
    while not server.end.established:
        answer = server.end.take(server.wait())
        server.sock.sendall(answer + server.end.say(greeting) if server.end.established else answer)


def discarded(rig: Rig) -> dict[str, int]:
    """Return the counts of discarded connections by cause, those above zero."""
    totals = rig.backend().totals.discarded
    return {cause.value: count for cause, count in totals.items() if count}


def finished(server: TlsSocket) -> bool:
    """Tell whether a backend has seen a whole end: close_notify and FIN."""
    return server.step().ended and server.fin


class TestDialled:
    """The handshake comes after the dial, and the client waits for both."""

    def test_a_client_is_served_and_both_ends_are_clean(self, certificates: Certificates) -> None:
        """What it sends meanwhile reaches the backend first; a FIN is a close_notify, both ways."""
        with over_tls(certificates) as (rig, _):
            client = rig.client()
            client.sendall(b"early ")
            server = accept(rig, certificates.server()).shake()
            client.sendall(b"late")
            assert server.receive(10) == b"early late"
            client.shutdown(socket.SHUT_WR)
            server.until(lambda end: end.ended, "a close_notify")
            server.send(b"answer")
            server.finish()
            server.sock.shutdown(socket.SHUT_WR)
            assert rig.receive_end(client) == b"answer"
            rig.until(lambda: rig.reasons)
            assert rig.reasons == ["client_closed"]
            rig.check_accounts()

    def test_a_backend_that_speaks_first(self, certificates: Certificates) -> None:
        """Its greeting may come in one piece with its Finished."""
        with over_tls(certificates) as (rig, _):
            client = rig.client()
            greet_at_once(accept(rig, older(certificates)), b"220 ready\r\n")
            assert rig.receive(client, 11) == b"220 ready\r\n"
            assert rig.backend().totals.connections == 1

    def test_a_truncation_is_passed_on_as_a_reset(self, certificates: Certificates) -> None:
        """A FIN without a close_notify is no end."""
        with over_tls(certificates) as (rig, _):
            client = rig.client()
            server = accept(rig, certificates.server()).shake()
            exchange(rig, client, server)
            server.sock.close()
            with pytest.raises(ConnectionResetError):
                rig.receive_end(client)
            assert rig.reasons == ["backend_reset"]
            rig.check_accounts()

    def test_a_proxy_header_goes_before_the_handshake(self, certificates: Certificates) -> None:
        """In plain text, as HAProxy does it; what follows is TLS."""
        options = {"proxy_protocol": {"send": "v1"}}
        with over_tls(certificates, **options) as (rig, _):
            client = rig.client()
            sock = rig.ends[0].accept()
            header = rig.receive(sock, 6)
            while not header.endswith(b"\r\n"):
                header += rig.receive(sock, 1)
            host, port = client.getsockname()
            assert header.startswith(f"PROXY TCP4 {host} 127.0.0.1 {port} ".encode())
            exchange(rig, client, TlsSocket(rig.until, sock, TlsEnd(certificates.server())).shake())

    def test_a_client_that_leaves_meanwhile(self, certificates: Certificates) -> None:
        """The handshake is given up, and the backend's place is free."""
        with over_tls(certificates) as (rig, _):
            client = rig.client()
            server = accept(rig, certificates.server())
            reset(client)
            rig.until(lambda: rig.reasons)
            assert rig.reasons == ["client_gone"]
            assert rig.failures == []
            rig.check_accounts()
            server.until(lambda _end: server.fin, "a FIN")


class TestFailures:
    """A handshake that fails is a failed attempt."""

    def test_another_backend_is_tried(self, certificates: Certificates) -> None:
        """The client notices nothing, and passive health hears the cause."""
        with over_tls(certificates, backends=2, retries=1) as (rig, _):
            client = rig.client()
            accept(rig, certificates.server("other.example"), 0).shake()
            exchange(rig, client, accept(rig, certificates.server(), 1).shake())
            [(backend, cause)] = rig.failures
            assert (backend, cause.partition(":")[0]) == ("b0", "wrong_name")
            assert rig.evidence == [Evidence.CONNECT]
            assert rig.service.totals.retries == 1
            assert rig.backend(0).totals.connect_failures == 1

    @pytest.mark.parametrize(
        ("names", "served", "cause"),
        [
            (("other.example",), {}, "wrong_name"),
            ((), {"expired": True}, "expired"),
            ((), {"stranger": True}, "unknown_ca"),
        ],
    )
    def test_all_failed(
        self, certificates: Certificates, names: tuple[str, ...], served: dict[str, bool], cause: str
    ) -> None:
        """The reason is a word of its own, the detail says why; the backend hears an alert, and no byte of the client."""
        with over_tls(certificates, retries=0) as (rig, _):
            client = rig.client()
            client.sendall(b"secret")
            server = accept(rig, certificates.server(*names, **served)).shake()
            rig.until(lambda: rig.reasons)
            [(reason, flow)] = rig.ended
            assert (reason, flow.detail.partition(":")[0]) == ("backend_tls_failed", cause)
            server.until(lambda end: end.failure, "an alert")
            assert not server.end.received
            rig.check_accounts()

    def test_a_stall_ends_with_the_connect_timeout(self, certificates: Certificates) -> None:
        """The handshake has what the dial has left."""
        with over_tls(certificates, retries=0, timeouts={"connect": "2s"}) as (rig, _):
            rig.client()
            rig.ends[0].accept()
            rig.pass_time(1.8)
            assert rig.reasons == []
            rig.pass_time(0.4)
            [(reason, flow)] = rig.ended
            assert (reason, flow.detail) == ("backend_tls_failed", "timeout: the TLS handshake took too long")
            rig.check_accounts()

    def test_plain_text(self, certificates: Certificates) -> None:
        """A backend that does not speak TLS."""
        with over_tls(certificates, retries=0) as (rig, _):
            rig.client()
            rig.ends[0].accept().sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            rig.until(lambda: rig.reasons)
            [(reason, flow)] = rig.ended
            assert (reason, flow.detail.partition(":")[0]) == ("backend_tls_failed", "not_tls")


class TestPreconnect:
    """The handshake is done ahead."""

    def options(self, **pool: Any) -> dict[str, Any]:
        """Return a service's, with one connection ahead."""
        return {"pool": {"mode": "preconnect", "min_idle": 1, **QUIET, **pool}}

    def test_the_handshake_is_over_before_a_client_comes(self, certificates: Certificates) -> None:
        """Its first bytes go at once, and a ticket that has come meanwhile is no greeting."""
        with over_tls(certificates, **self.options()) as (rig, _):
            server = accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            rig.settle()
            [idle] = rig.backend().pool.shelf.idle
            assert idle.tls.session.has_ticket  # type: ignore[union-attr]
            exchange(rig, rig.client(), server)
            assert (rig.backend().totals.hits, discarded(rig)) == (1, {})

    def test_a_greeting_is_kept_for_its_one_client(self, certificates: Certificates) -> None:
        """It comes first and once, before what is said later."""
        with over_tls(certificates, **self.options()) as (rig, _):
            server = accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            server.send(b"220 ready\r\n")
            rig.settle()
            assert rig.backend().pool.goal.greeting.is_known(rig.reactor.now)
            server.send(b"250 still\r\n")
            client = rig.client()
            assert rig.receive(client, 22) == b"220 ready\r\n250 still\r\n"
            exchange(rig, client, server)
            assert discarded(rig) == {}

    def test_a_greeting_that_comes_with_the_end_of_the_handshake(self, certificates: Certificates) -> None:
        """It is one as any other: nobody waits for an event that does not come."""
        with over_tls(certificates, **self.options()) as (rig, _):
            greet_at_once(accept(rig, older(certificates)), b"220 ready\r\n")
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            assert rig.backend().pool.goal.greeting.is_known(rig.reactor.now)
            assert rig.receive(rig.client(), 11) == b"220 ready\r\n"

    def test_an_old_greeting_is_worth_nothing(self, certificates: Certificates) -> None:
        """As without TLS: the server waits for a login, and not for long."""
        with over_tls(certificates, **self.options(greeting_age="1s")) as (rig, _):
            server = accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            server.send(b"220 ready\r\n")
            rig.settle()
            rig.pass_time(1.2)
            assert discarded(rig) == {"greeted": 1}
            server.until(lambda _: finished(server), "a whole end")

    @pytest.mark.parametrize("how", ["close_notify", "fin", "reset"])
    def test_a_dead_one_is_never_handed_over(self, certificates: Certificates, how: str) -> None:
        """Whether it is seen at once, or at the last look."""
        for is_seen in (False, True):
            with over_tls(certificates, **self.options()) as (rig, _):
                server = accept(rig, certificates.server()).shake()
                rig.until(lambda rig=rig: len(rig.backend().pool) == 1, "the pool to be filled")  # type: ignore[misc]
                if how == "close_notify":
                    server.finish()
                elif how == "fin":
                    server.sock.shutdown(socket.SHUT_WR)
                else:
                    reset(server.sock)
                if is_seen:
                    rig.settle()
                    assert len(rig.backend().pool) == 0
                client = rig.client()
                exchange(rig, client, accept(rig, certificates.server()).shake())
                assert discarded(rig) == {"eof": 1}

    def test_one_that_turns_out_dead_is_replaced(self, certificates: Certificates) -> None:
        """After the hand-over, if nothing was sent yet: by a fresh dial and a fresh handshake."""
        with over_tls(certificates, **self.options()) as (rig, _):
            server = accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            client = rig.client()
            accept(rig, certificates.server()).shake()  # the pool's next one
            server.finish()
            server.sock.close()
            rig.until(lambda: not rig.backend().pool.refiller.dials, "the pool to be filled")
            exchange(rig, client, accept(rig, certificates.server()).shake())
            assert rig.reasons == []

    def test_a_handshake_ahead_that_fails_asks_for_patience(self, certificates: Certificates) -> None:
        """It is tried again later, and says nothing of the backend's health."""
        with over_tls(certificates, **self.options()) as (rig, _):
            accept(rig, certificates.server("other.example")).shake()
            rig.until(lambda: not rig.backend().pool.own, "the failure")
            assert (len(rig.backend().pool), rig.failures) == (0, [])
            assert rig.ends[0].nobody()
            rig.pass_time(1.2)
            accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")

    def test_a_change_takes_those_that_were_made_before(self, certificates: Certificates) -> None:
        """Other settings, and other files: whatever was verified before may not be good any more."""
        with over_tls(certificates, **self.options()) as (rig, tls):
            old = accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            tls.context = certificates.client()  # as a renewal does
            client = rig.client()
            assert discarded(rig) == {"changed": 1}
            old.until(lambda _: finished(old), "a whole end")
            exchange(rig, client, accept(rig, certificates.server()).shake())
            rig.until(lambda: len(rig.backend().pool.refiller.dials) == 1, "a dial ahead")
            accept(rig, certificates.server()).shake()
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            rig.backend().use_tls(PlainBackendTls(certificates.client()), ahead=True)
            assert discarded(rig) == {"changed": 2}

    def test_with_something_of_the_client_in_front_only_the_dial_is_ahead(
        self, certificates: Certificates
    ) -> None:
        """A PROXY header comes before the handshake, which so waits for the client."""
        options = {**self.options(), "proxy_protocol": {"send": "v2"}}
        with over_tls(certificates, **options) as (rig, _):
            rig.until(lambda: len(rig.backend().pool) == 1, "the pool to be filled")
            sock = rig.ends[0].accept()
            assert rig.silent(sock)
            client = rig.client()
            assert rig.receive(sock, 28).startswith(b"\r\n\r\n\0\r\nQUIT\n")
            exchange(rig, client, TlsSocket(rig.until, sock, TlsEnd(certificates.server())).shake())
            assert rig.backend().totals.hits == 1


class TestReuse:
    """A connection goes back to the pool with its session."""

    OPTIONS: ClassVar[dict[str, Any]] = {"pool": {"mode": "reuse", **QUIET}}

    def test_the_next_client_gets_it(self, certificates: Certificates) -> None:
        """In the session that there is: nobody shakes hands again."""
        with over_tls(certificates, **self.OPTIONS) as (rig, _):
            client = rig.client()
            server = accept(rig, certificates.server()).shake()
            for number in range(3):
                exchange(rig, client, server, b"%d" % number)
                client.shutdown(socket.SHUT_WR)
                assert rig.receive_end(client) == b""
                assert len(rig.backend().pool) == 1
                client = rig.client()
            assert rig.ends[0].nobody()
            assert rig.backend().totals.hits == 3

    @pytest.mark.parametrize("how", ["late", "close_notify", "fin"])
    def test_whatever_comes_discards_it(self, certificates: Certificates, how: str) -> None:
        """Something late must not be the next client's, and an end is one."""
        with over_tls(certificates, **self.OPTIONS) as (rig, _):
            client = rig.client()
            server = accept(rig, certificates.server()).shake()
            exchange(rig, client, server)
            client.shutdown(socket.SHUT_WR)
            rig.until(lambda: len(rig.backend().pool) == 1, "the connection back in the pool")
            if how == "late":
                server.send(b"late")
            elif how == "close_notify":
                server.finish()
            else:
                server.sock.shutdown(socket.SHUT_WR)
            exchange(rig, rig.client(), accept(rig, certificates.server()).shake())
            assert discarded(rig) == {"unread" if how == "late" else "eof": 1}

    def test_one_of_before_a_renewal_does_not_go_back(self, certificates: Certificates) -> None:
        """Its session was begun with an authority or a certificate that is another one now."""
        with over_tls(certificates, **self.OPTIONS) as (rig, tls):
            client = rig.client()
            server = accept(rig, certificates.server()).shake()
            exchange(rig, client, server)
            tls.context = certificates.client()
            client.shutdown(socket.SHUT_WR)
            server.until(lambda _: finished(server), "a whole end")
            assert (len(rig.backend().pool), discarded(rig)) == (0, {"changed": 1})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(certificates: Certificates, version: ssl.TLSVersion) -> None:
    """The second connection to a backend goes on with the first one's session."""
    context = certificates.server()
    context.maximum_version = version
    with over_tls(certificates) as (rig, _):
        for is_resumed in (False, True):
            client = rig.client()
            server = accept(rig, context).shake()
            exchange(rig, client, server)
            assert server.end.tls.session_reused is is_resumed
            client.close()
            server.until(lambda end: end.ended, "a close_notify")
            server.finish()
            server.sock.close()
            rig.until(lambda: not rig.service.flows)
