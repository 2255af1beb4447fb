"""Alert rules with a real Prometheus that scrapes real processes: every fault is made, and every alert fires."""

from __future__ import annotations

import os
import resource
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.core.node_record import NodeRecord
from controlplane.operations.options import now_text
from tests.controlplane.operations.commands import Control, Daemon
from tests.support.backends import BannerServer, EchoServer, LineServer, Resetter, Source
from tests.support.clients import dial
from tests.support.consul import Agent, checked
from tests.support.dashboard import rows, targets
from tests.support.dataplane import DataPlane, unix_request
from tests.support.ports import HeldPort
from tests.support.programs import require
from tests.support.prometheus import Prometheus, alert_names
from tests.support.tls import CertificateAuthority
from tests.support.wait import wait_for

FIRES_S = 60.0
"""How long an alert is waited for. On an idle machine all of them fire within fifteen seconds."""
UNCHECKED: dict[str, Any] = {
    "pool": {"mode": "off"},
    "health": {"active": {"type": "none"}, "passive": {"failures": 0}},
}
CHECKED: dict[str, Any] = {
    "pool": {"mode": "off"},
    "health": {"active": {"type": "tcp", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}},
}
GREETED: dict[str, Any] = {
    **CHECKED,
    "health": {"active": {**CHECKED["health"]["active"], "type": "expect", "expect": {"expect": "220 "}}},
}
Labels = dict[str, str]
Fault = Callable[["Site"], Labels]


IMPATIENT = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1.5"}
"""Spans are sent, and given up, soon."""


class Site:
    """Healthy processes, and a Prometheus that scrapes them.

    `traffic` runs what the daemon pushes: one service for each fault that clients meet. `crew` has workers. `one` and `two`
    are a pair that nobody has told anything yet.
    """

    def __init__(self, control: Control, stack: ExitStack, *, lines: str) -> None:
        self.stack = stack
        self.control = control
        self.backends = Backends(stack)
        self.ports = {name: self.port() for name in ("traffic", "crew", "one", "two", "certified", "control")}
        self.listens: dict[str, str] = {}
        self.document = {"version": 1, "services": self.services()}
        spans = ["--otel-endpoint", f"http://{self.backends.nobody}", "--otel-sample", "1"]
        self.traffic = self.plane(
            "traffic", "--access-log", lines, *spans, runtime_dir=control.runtime_dir, environment=IMPATIENT
        )
        self.crew = self.plane("crew", "--workers", "2")
        self.crew.put_snapshot({"web": {"listen": self.port(), "backends": [self.backends.lines.address]}})
        self.one, self.two = self.plane("one"), self.plane("two")
        self.certified = self.plane("certified")
        self.daemon = stack.enter_context(
            Daemon(control, control.write(self.document), "--http", self.ports["control"])
        )
        control.wait_status(lambda status: status["converged"] and status["generation"] == 1)
        jobs = {
            "livelb-dataplane": ["traffic"],
            "livelb-certified": ["certified"],
            "livelb-crew": ["crew"],
            "livelb-pair": ["one", "two"],
        }
        self.prometheus = stack.enter_context(
            Prometheus(
                {
                    "livelb-control": [self.ports["control"]],
                    **{job: [self.ports[name] for name in names] for job, names in jobs.items()},
                }
            )
        )
        self.prometheus.wait_scraped()

    def port(self) -> str:
        """Return an address to listen on."""
        return self.stack.enter_context(HeldPort()).address

    def plane(self, name: str, *arguments: str, **options: Any) -> DataPlane:
        """Start a data plane that is scraped."""
        metrics = ["--metrics", self.ports[name]] if name in self.ports else []
        return self.stack.enter_context(DataPlane([*metrics, *arguments], name=name, **options))

    def service(self, name: str, *backends: str, **options: Any) -> dict[str, Any]:
        """Describe a service of `traffic`."""
        self.listens[name] = self.port()
        return {"listen": self.listens[name], "backends": list(backends), **UNCHECKED, **options}

    def services(self) -> dict[str, Any]:
        """Describe all services of `traffic`."""
        backends, health = self.backends, {"active": {"type": "none"}}
        passive = {"failures": 1, "ejection": "50ms", "max_ejection": "50ms", "resets": "any"}
        echo = backends.echo.address
        return {
            "gone": self.service("gone", backends.gone.address, **CHECKED),
            "panic": self.service("panic", *(one.address for one in backends.three), **GREETED),
            "eject": self.service(
                "eject", backends.resets.address, echo, health={**health, "passive": passive}
            ),
            "cut": self.service(
                "cut", backends.resets.address, health={**health, "passive": {"failures": 0}}
            ),
            "refused": self.service("refused", backends.nobody),
            "full": self.service(
                "full", echo, limits={"connections": 1, "queue": 1, "queue_timeout": "200ms"}
            ),
            "slow": self.service("slow", echo, limits={"connections": 1, "queue": 9, "queue_timeout": "30s"}),
            "limit": self.service("limit", echo, limits={"connections": 1}),
            "pool": self.service("pool", backends.once.address, pool={"mode": "reuse"}),
        }

    def in_background(self, work: Callable[[threading.Event], object]) -> None:
        """Run `work` in a thread; it ends soon after the event is set."""
        over = threading.Event()
        thread = threading.Thread(target=work, args=(over,), daemon=True)
        self.stack.callback(thread.join)
        self.stack.callback(over.set)
        thread.start()

    def visit(self, service: str) -> None:
        """Have clients come, twenty a second, each with one line; whatever becomes of them."""

        def come(over: threading.Event) -> None:
            while not over.wait(0.05):
                with suppress(OSError), dial(self.listens[service], timeout_s=1) as client:
                    client.sendall(b"hello\n")
                    client.recv(100)

        self.in_background(come)

    def occupy(self, service: str) -> None:
        """Take the only place of a service, for good."""
        client = self.stack.enter_context(dial(self.listens[service]))
        client.sendall(b"mine")
        assert client.recv(100) == b"mine"

    def has_fired(self, alert: str, labels: Mapping[str, str]) -> bool:
        """Tell whether an alert has fired with (at least) these labels."""
        wanted = {"alertname": alert, **labels}.items()
        return any(wanted <= fired.items() for fired in self.prometheus.fired())

    def wait_fired(self, alert: str, labels: Mapping[str, str]) -> None:
        """Return when it has."""
        what = f"{alert} {dict(labels)} to fire"
        wait_for(lambda: self.has_fired(alert, labels), what, deadline_s=FIRES_S, every_s=0.1)


class Backends:
    """What the services of `traffic` have behind them."""

    def __init__(self, stack: ExitStack) -> None:
        self.lines = stack.enter_context(LineServer("lines"))
        self.echo = stack.enter_context(EchoServer())
        self.gone = stack.enter_context(LineServer("gone"))
        self.three = [stack.enter_context(BannerServer(f"three-{number}")) for number in range(3)]
        self.resets = stack.enter_context(Resetter())
        self.once = stack.enter_context(Source(data=b"bye"))
        """Ends every connection, so none can be kept for the next client."""
        self.nobody = stack.enter_context(HeldPort()).address


# -- faults, each with the labels that its alert must carry --------------------------------------------


def no_backend(site: Site) -> Labels:
    """The only backend dies."""
    site.backends.gone.stop()
    return {"service": "gone", "severity": "critical"}


def turned_away(site: Site) -> Labels:
    """Clients come although there is no backend."""
    site.visit("gone")
    return {"service": "gone"}


def clients_cut(site: Site) -> Labels:
    """A backend resets every client."""
    site.visit("cut")
    return {"service": "cut"}


def panic(site: Site) -> Labels:
    """Two of three backends can be reached, and fail their checks."""
    for server in site.backends.three[1:]:
        server.banner = b"421 later\n"
    return {"service": "panic"}


def backends_down(_site: Site) -> Labels:
    """Nothing more than that."""
    return {"service": "panic"}


def connect_failures(site: Site) -> Labels:
    """Clients come to a backend where nobody listens."""
    site.visit("refused")
    return {"service": "refused", "backend": site.backends.nobody}


def ejections(site: Site) -> Labels:
    """A backend resets every client, and is ejected whenever it is tried."""
    site.visit("eject")
    return {"service": "eject", "backend": site.backends.resets.address}


def queue_full(site: Site) -> Labels:
    """The only place is taken, and the queue has room for one."""
    site.occupy("full")
    site.visit("full")
    return {"service": "full"}


def queue_slow(site: Site) -> Labels:
    """Clients keep the only place for longer than a second, one after the other."""

    def stay(over: threading.Event) -> None:
        while not over.is_set():
            with suppress(OSError), dial(site.listens["slow"], timeout_s=30) as client:
                client.sendall(b"x")
                client.recv(1)
                over.wait(1.3)

    for _ in range(3):
        site.in_background(stay)
    return {"service": "slow"}


def refused_at_limit(site: Site) -> Labels:
    """The only place is taken, and there is no queue."""
    site.occupy("limit")
    site.visit("limit")
    return {"service": "limit", "reason": "limit_connections"}


def pool_misses(site: Site) -> Labels:
    """Backend connections are to be used again, and the backend ends every one."""
    site.visit("pool")
    return {"service": "pool"}


def snapshot_not_saved(site: Site) -> Labels:
    """A file stands where the state directory was, and something new comes to be saved."""
    site.crew.state_dir.rename(site.crew.state_dir.with_name("away"))
    site.crew.state_dir.touch()
    site.crew.put_snapshot({"web": {"listen": site.port(), "backends": [site.backends.lines.address]}})
    return {"instance": site.ports["crew"]}


def log_lines_dropped(site: Site) -> Labels:
    """The access log cannot be written; clients of the other faults make the lines."""
    return {"instance": site.ports["traffic"]}


def spans_dropped(site: Site) -> Labels:
    """Nobody collects the spans of those clients."""
    return {"instance": site.ports["traffic"]}


def kill_worker(site: Site, ends: int) -> None:
    """Kill a worker, and return when that is known."""
    wait_for(lambda: site.crew.status()["workers"], "a worker to kill")
    os.kill(site.crew.status()["workers"][0]["pid"], signal.SIGKILL)

    def died() -> bool:
        return site.crew.metrics().value("lb_worker_ends_total", cause="died") >= ends

    wait_for(died, f"{ends} dead workers")


def worker_died(site: Site) -> Labels:
    """One worker is killed."""
    kill_worker(site, 1)
    labels = {"instance": site.ports["crew"]}
    site.wait_fired("LbWorkerDied", labels)
    return labels


def crash_loop(site: Site) -> Labels:
    """Workers are killed as often as they come up."""
    labels = {"instance": site.ports["crew"]}
    for ends in range(2, 50):
        kill_worker(site, ends)
        if site.has_fired("LbWorkerCrashLoop", labels):
            break
    return labels


def contested(site: Site) -> Labels:
    """Somebody pushes something else each time when what the daemon wants runs again."""
    own = site.traffic.get("/v1/snapshot")["services"]
    more = {"listen": site.port(), "backends": [site.backends.lines.address]}
    for _ in range(2):
        generation = site.traffic.get("/v1/info")["generation"] + 1
        site.traffic.put_snapshot({**own, "more": more}, generation)
        wait_for(
            lambda: "more" not in site.traffic.get("/v1/snapshot")["services"], "the daemon to push again"
        )
    return {"instance": site.ports["control"]}


def nodes_disagree(site: Site) -> Labels:
    """Two nodes are told different things."""
    for plane, backend in ((site.one, site.backends.echo), (site.two, site.backends.lines)):
        site.listens[plane.name] = site.port()
        service = {"listen": site.listens[plane.name], "backends": [backend.address], **UNCHECKED}
        plane.put_snapshot({"web": {**service, "mode": "sticky"}})
    return {"job": "livelb-pair"}


def tables_disagree(_site: Site) -> Labels:
    """Nothing more than that: the service is sticky."""
    return {"job": "livelb-pair", "service": "web"}


def descriptors_short(site: Site) -> Labels:
    """A node gets room for twenty more descriptors when it has many."""
    for _ in range(40):
        client = site.stack.enter_context(dial(site.listens["one"]))
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    used = len(list(Path(f"/proc/{site.one.pid}/fd").iterdir()))
    _, hard = resource.prlimit(site.one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(site.one.pid, resource.RLIMIT_NOFILE, (used + 20, hard))
    return {"instance": site.ports["one"]}


def accepting_paused(site: Site) -> Labels:
    """One more client comes."""
    labels = {"instance": site.ports["one"]}
    site.wait_fired("LbDescriptorsShort", labels)
    site.stack.enter_context(dial(site.listens["one"]))
    return {**labels, "address": site.listens["one"]}


def loop_lag(site: Site) -> Labels:
    """A process gets the processor for a fifth of the time."""
    over = threading.Event()

    def starve(ended: threading.Event) -> None:
        while not (over.is_set() or ended.is_set()):
            site.two.send_signal(signal.SIGSTOP)
            ended.wait(0.4)
            site.two.send_signal(signal.SIGCONT)
            ended.wait(0.1)

    labels = {"instance": site.ports["two"]}
    site.in_background(starve)
    site.wait_fired("LbNodesDisagree", {"job": "livelb-pair"})  # which need it to be alive
    site.wait_fired("LbTablesDisagree", {"job": "livelb-pair"})
    site.wait_fired("LbLoopLag", labels)
    over.set()
    return labels


def certificate_ends(site: Site) -> Labels:
    """Of two services one has a certificate that ends in half a day, and the other one of three days."""
    authority = CertificateAuthority(site.certified.directory / "tls")
    services = {}
    for name, hours in (("today", 12), ("soon", 72)):
        pair = authority.issue(f"{name}.example.com", lasts=timedelta(hours=hours), file=name)
        site.listens[name] = site.port()
        listed = {"listen": site.listens[name], "backends": [site.backends.echo.address], **UNCHECKED}
        services[name] = {**listed, "tls": {"certificates": [pair.spec]}}
    site.certified.put_snapshot(services)
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    with (
        dial(site.listens["soon"]) as client,
        trusting.wrap_socket(client, server_hostname="soon.example.com") as secured,
    ):
        secured.sendall(b"x")
        assert secured.recv(1) == b"x"
    return {"service": "today", "severity": "critical"}


def certificate_ends_soon(_site: Site) -> Labels:
    """Nothing more than that."""
    return {"service": "soon", "severity": "warning"}


def certificate_not_renewed(site: Site) -> Labels:
    """What renews writes something that is no certificate."""
    (site.certified.directory / "tls" / "today.pem").write_text("oops")
    return {"service": "today"}


def target_down(site: Site) -> Labels:
    """A process is killed."""
    site.two.kill()
    return {"instance": site.ports["two"], "job": "livelb-pair"}


def push_refused(site: Site) -> Labels:
    """A second data plane appears on the same machine, which cannot have the same addresses."""
    late = site.plane("late", runtime_dir=site.control.runtime_dir)
    labels = {"dataplane": "late"}
    site.wait_fired("LbPushRefused", labels)
    late.send_signal(signal.SIGSTOP)
    site.stack.callback(late.send_signal, signal.SIGCONT)
    return labels


def not_converged(site: Site) -> Labels:
    """Nothing more than that."""
    return {"instance": site.ports["control"]}


def unreachable(_site: Site) -> Labels:
    """It was stopped then, and does not answer."""
    return {"dataplane": "late"}


def config_error(site: Site) -> Labels:
    """Somebody saves a file with a mistake."""
    site.control.write("version: 1\nservices:\n  web: {listen: nowhere}\n")
    return {"instance": site.ports["control"]}


FAULTS: dict[str, Fault] = {
    "LbNoBackend": no_backend,
    "LbClientsTurnedAway": turned_away,
    "LbClientsCut": clients_cut,
    "LbPanic": panic,
    "LbBackendsDown": backends_down,
    "LbConnectFailures": connect_failures,
    "LbEjections": ejections,
    "LbQueueFull": queue_full,
    "LbQueueSlow": queue_slow,
    "LbRefusedAtLimit": refused_at_limit,
    "LbPoolMisses": pool_misses,
    "LbSnapshotNotSaved": snapshot_not_saved,
    "LbLogLinesDropped": log_lines_dropped,
    "LbSpansDropped": spans_dropped,
    "LbCertificateEnds": certificate_ends,
    "LbCertificateEndsSoon": certificate_ends_soon,
    "LbCertificateNotRenewed": certificate_not_renewed,
    "LbContested": contested,
    "LbConfigError": config_error,
    "LbNodesDisagree": nodes_disagree,
    "LbTablesDisagree": tables_disagree,
    "LbDescriptorsShort": descriptors_short,
    "LbAcceptingPaused": accepting_paused,
    "LbWorkerDied": worker_died,
    "LbWorkerCrashLoop": crash_loop,
    "LbLoopLag": loop_lag,
    "LbTargetDown": target_down,
    "LbPushRefused": push_refused,
    "LbNotConverged": not_converged,
    "LbDataPlaneUnreachable": unreachable,
}
"""In the order in which they are made."""


def test_every_alert_has_a_fault():
    """Whoever writes an alert makes its fault here."""
    assert sorted(alert_names()) == sorted([*FAULTS, *DISCOVERY_ALERTS, *CLUSTER_ALERTS])


def wait_shown(prometheus: Prometheus, title: str) -> None:
    """Return when every panel of a row of the dashboard has something to show; a query that is wrong fails."""
    for panel in rows()[title]:
        questions = [expression for expression, _ in targets(panel)]

        def shows(asked: list[str] = questions) -> bool:
            return sum(len(prometheus.query(each)) for each in asked) > 0  # and none is an error

        wait_for(shows, f"data for {panel['title']}: {questions}", every_s=0.2)


def assert_well_written(text: str) -> None:
    """What a process writes is valid, and promtool's linter has nothing to say."""
    argv = [require("promtool"), "check", "metrics"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.needs("prometheus", "promtool")
@pytest.mark.timeout(240)
def test_every_alert_fires_when_its_fault_is_made(tmp_path_factory):
    """On a healthy site nothing fires; then every fault is made, and its alert fires for what was broken."""
    with ExitStack() as stack:
        site = Site(Control(tmp_path_factory.mktemp("d")), stack, lines="/dev/full")
        assert site.prometheus.fired() == []
        expected = {alert: make(site) for alert, make in FAULTS.items()}
        for alert, labels in expected.items():
            site.wait_fired(alert, labels)
        for title in rows().keys() - {"Consul"}:
            wait_shown(site.prometheus, title)
        for text in (
            site.traffic.get("/metrics"),
            site.crew.get("/metrics"),
            unix_request(site.daemon.socket, "GET", "/metrics")[1],
        ):
            assert_well_written(text)


# -- discovery ---------------------------------------------------------------------------------------

DISCOVERY_ALERTS = ("LbDiscoveryHeld", "LbDiscoveryStale", "LbServiceNotServed")
CLUSTER_ALERTS = ("LbNodeGone", "LbNodeBehind")


def put_node(agent: Agent, name: str, query: str = "") -> None:
    """Have the record of another node in Consul: one that does not run what it should."""
    record = NodeRecord(node=name, at=now_text(), livelb="0.1.0").encode()
    assert agent.request("PUT", f"/v1/kv/livelb/edge/nodes/{name}{query}", record) == (200, True)


@pytest.fixture
def agent() -> Iterator[Agent]:
    """A Consul for development, with an instance of `api` and one of `web`."""
    with Agent() as agent:
        for name in ("api", "web"):
            status, answer = agent.request("PUT", "/v1/agent/service/register", checked(name, name=name))
            assert status == 200, answer
        yield agent


@pytest.mark.needs("prometheus", "consul")
@pytest.mark.timeout(120)
def test_alerts_of_discovery_fire(agent, tmp_path_factory):
    """All instances of one service vanish: held; one is misspelt: not served. The agent dies: the other one is stale.

    Of two further nodes one has no session any more: gone; the other one runs something else: behind.
    """
    control = Control(tmp_path_factory.mktemp("d"))
    with ExitStack() as stack:
        metrics, misspelt, *listens = (stack.enter_context(HeldPort()).address for _ in range(4))
        plane = stack.enter_context(DataPlane(name="a", runtime_dir=control.runtime_dir))
        services = {
            name: {"listen": listen, "discover": {"consul": {"service": name}}, **UNCHECKED}
            for name, listen in zip(("api", "web"), listens, strict=True)
        }
        document = {"version": 1, "consul": {"address": agent.address}, "services": services}
        document["cluster"] = {"name": "edge", "node": "n1"}
        stack.enter_context(Daemon(control, control.write(document), "--http", metrics))
        plane.wait_status(
            lambda status: [len(each["backends"]) for each in status["services"].values()] == [1, 1]
        )
        control.wait_status(lambda status: status["converged"])
        prometheus = stack.enter_context(Prometheus({"livelb-control": [metrics]}))
        prometheus.wait_scraped()
        assert prometheus.fired() == []

        def wait_fired(alert: str, **labels: str) -> None:
            wanted = {"alertname": alert, **labels}.items()
            wait_for(
                lambda: any(wanted <= fired.items() for fired in prometheus.fired()),
                f"{alert} to fire",
                deadline_s=FIRES_S,
                every_s=0.1,
            )

        put_node(agent, "n2")
        session = agent.request("PUT", "/v1/session/create", {})[1]["ID"]
        put_node(agent, "n3", f"?acquire={session}")
        wait_fired("LbNodeGone", cluster="edge", node="n2")
        wait_fired("LbNodeBehind", cluster="edge", node="n3")
        assert agent.request("PUT", "/v1/agent/service/deregister/web")[0] == 200
        wait_fired("LbDiscoveryHeld", source="consul:web", services="web")
        services["wbe"] = {"listen": misspelt, "discover": {"consul": {"service": "wbe"}}, **UNCHECKED}
        control.write(document)
        wait_fired("LbServiceNotServed", service="wbe")
        agent.kill()
        wait_fired("LbDiscoveryStale", source="consul:api", state="stale")
        wait_shown(prometheus, "Consul")
