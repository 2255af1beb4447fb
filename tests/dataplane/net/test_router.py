"""Clients of a listener that several services share: whose they are before and after, and that each is counted once."""

from __future__ import annotations

from dataclasses import replace

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import MatchSpec
from dataplane.net.flow import Flow
from dataplane.net.router import Router
from dataplane.net.service import Service
from tests.dataplane.net.routed import RoutedRig, routed
from tests.support.hellos import real_hello

A = {"match": {"sni": ["a.example"]}}
B = {"match": {"sni": ["b.example"]}}


def rematch(rig: RoutedRig, name: str, match: MatchSpec | None) -> None:
    """Give a service another match."""
    service = rig.services[name]
    service.configure(replace(service.spec, match=match))


def test_until_it_is_routed_a_client_is_seen_at_the_first_service_and_counted_nowhere() -> None:
    """Then it is the other's, and only there: no counter falls."""
    with routed({"t": B}, **A) as rig:
        first, second = rig.services["s"], rig.services["t"]
        client = rig.client()
        assert (len(first.flows), len(second.flows)) == (1, 0)
        assert (first.totals.connections, second.totals.connections) == (0, 0)
        client.sendall(real_hello("b.example"))
        rig.ends[1].accept()
        assert (len(first.flows), len(second.flows)) == (0, 1)
        assert (first.totals.connections, second.totals.connections) == (0, 1)
        assert (second.active, rig.router.accepted_for) == (1, {"t": 1})
        rig.client().close()
        rig.until(lambda: rig.reasons == ["not_tls"])
        assert (first.totals.connections, first.totals.closed[CloseReason.NOT_TLS]) == (1, 1)


def test_limits_and_access_are_those_of_the_service_that_it_is_routed_to() -> None:
    """They begin to hold there: who has said nothing yet takes no place."""
    limits = {"limits": {"per_client": 1}}
    with routed(
        {"t": {**B, **limits}, "u": {"match": {"sni": ["u.example"]}, "access": {"deny": ["127.0.0.0/8"]}}},
        **A,
    ) as rig:
        clients = [rig.client() for _ in range(3)]
        for client in clients[:2]:
            client.sendall(real_hello("b.example"))
            rig.settle()
        rig.until(lambda: rig.reasons == ["limit_per_client"])
        clients[2].sendall(real_hello("u.example"))
        rig.until(lambda: rig.reasons == ["limit_per_client", "denied"])
        assert [flow.service.name for _, flow in rig.ended] == ["t", "u"]


def test_matches_by_address_alone_need_no_hello() -> None:
    """A server that speaks first is reached, and who is nobody's is told apart from who speaks no TLS."""
    with routed({"t": {"match": {"source": ["192.0.2.0/24"]}}}, match={"source": ["127.0.0.0/8"]}) as rig:
        client = rig.client()
        server = rig.ends[0].accept()
        server.sendall(b"220 ready")
        assert rig.receive(client, 9) == b"220 ready"
        rematch(rig, "s", MatchSpec(source=("198.51.100.0/24",)))
        rig.router.configure([rig.services["s"], rig.services["t"]])
        rig.client()
        rig.until(lambda: rig.reasons == ["no_route"])
        assert "takes this address" in rig.ended[0][1].detail


def test_a_service_alone_with_a_match() -> None:
    """It takes whom it names, and nobody else."""
    with routed({}, **A) as rig:
        rig.client().sendall(real_hello("b.example"))
        rig.until(lambda: rig.reasons == ["no_route"])
        rig.client().sendall(real_hello("a.example"))
        rig.ends[0].accept()


def test_a_change_of_routes_holds_for_who_waits_and_touches_nobody_who_was_routed() -> None:
    """A name moves from one service to the other between two pieces of a ClientHello."""
    hello = real_hello("b.example")
    with routed({"t": B}, **A) as rig:
        before = rig.client()
        before.sendall(hello)
        server = rig.ends[1].accept()
        waiting = rig.client()
        waiting.sendall(hello[:90])
        rig.settle()
        rematch(rig, "t", MatchSpec(sni=("other.example",)))
        rematch(rig, "s", MatchSpec(sni=("a.example", "b.example")))
        rig.router.configure([rig.services["s"], rig.services["t"]])
        waiting.sendall(hello[90:])
        assert rig.receive(rig.ends[0].accept(), len(hello)) == hello
        assert rig.receive(server, len(hello)) == hello
        server.sendall(b"still here")
        assert rig.receive(before, 10) == b"still here"


def test_the_first_service_goes_while_clients_wait() -> None:
    """They stand at the next one then, and the one that goes hears that it has nobody left."""
    drained: list[str] = []
    with routed({"t": B}, **A) as rig:
        first, second = rig.services["s"], rig.services["t"]
        first.observer = type("Drained", (), {"drained": lambda _: drained.append("s")})()
        client = rig.client()
        rig.router.configure([second])
        assert (len(first.flows), len(second.flows), drained) == (0, 1, [])
        first.draining = True
        client.sendall(real_hello("b.example"))
        rig.ends[1].accept()
        other = rig.client()
        assert len(second.flows) == 2
        other.close()
        rig.until(lambda: rig.reasons == ["not_tls"])


def test_who_leaves_a_service_that_drains_for_another_ends_its_draining() -> None:
    """The service that a client was never counted at must not wait for it."""
    drained: list[str] = []
    with routed({"t": B}, **A) as rig:
        first = rig.services["s"]
        first.observer = type("Drained", (), {"drained": lambda _: drained.append("s")})()
        client = rig.client()
        first.draining = True
        client.sendall(real_hello("b.example"))
        rig.ends[1].accept()
        assert drained == ["s"]


def test_only_a_service_for_everybody_is_left() -> None:
    """Whoever waits for a ClientHello is let in at once: it may be one who says nothing first."""
    with routed({"t": B}, **A) as rig:
        client = rig.client()
        client.sendall(b"\x16")
        rig.settle()
        assert rig.ends[0].nobody()
        rematch(rig, "s", None)
        rig.router.configure([rig.services["s"]])
        assert rig.receive(rig.ends[0].accept(), 1) == b"\x16"
        client.sendall(b"x")  # the kernel waits for no further bytes any more
        assert rig.receive(rig.ends[0].connections[0], 1) == b"x"


def test_the_deadline_of_a_drain_holds_before_and_after() -> None:
    """One that was given while the client waited ends it wherever it is then."""
    with routed({"t": B}, **A) as rig:
        rig.client()
        routed_one = rig.client()
        for flow in list(rig.router.unrouted):
            flow.deadline = rig.reactor.now + 3
            rig.services["s"].deadlines.schedule(flow)
        routed_one.sendall(real_hello("b.example"))
        rig.ends[1].accept()
        rig.pass_time(3.1)
        assert rig.reasons == ["drain_timeout", "drain_timeout"]
        assert sorted(flow.service.name for _, flow in rig.ended) == ["s", "t"]


def test_a_client_that_another_process_has_routed_stays() -> None:
    """It is routed again, by what it has said, and not handed over a second time."""
    handed: list[str] = []
    with routed({"t": B}, **A) as rig:
        second = rig.services["t"]

        class Noting(Service):
            """A service of a worker, which notes which clients it may hand over."""

            def routed(self, flow: Flow, listener: str) -> None:
                handed.append(listener)
                super().routed(flow, listener)

        noting = Noting(rig.reactor, second.spec, rig)
        noting.backends, noting.selection = second.backends, second.selection
        noting.access_log, rig.services["t"] = second.access_log, noting
        router = Router(rig.address, [rig.services["s"], noting])
        rig.listener.serve(rig.services["s"], router.accepted)
        rig.client().sendall(real_hello("b.example"))
        rig.ends[1].accept()
        rig.listener.serve(rig.services["s"], router.receive)
        rig.client().sendall(real_hello("b.example"))
        rig.ends[1].accept()
        assert handed == [rig.address, ""]


def test_thousands_of_silent_clients_do_not_hold_up_one_who_speaks() -> None:
    """They are in the epoll, and in nobody's way; each ends at its deadline."""
    with routed({"t": B}, timeouts={"client_hello": "5s"}, **A) as rig:
        silent = [rig.client() for _ in range(1000)]
        for client in silent[::2]:
            client.sendall(b"\x16\x03\x01\x02")
        rig.settle()
        steps = 0
        speaker = rig.client()
        speaker.sendall(real_hello("b.example"))
        while rig.ends[1].nobody():
            rig.step()
            steps += 1
            assert steps < 100_000
        rig.ends[1].accept()
        rig.pass_time(5.1)
        assert rig.reasons == ["client_hello_timeout"] * 1000
