"""The dashboard in a real Chromium, against a real daemon and a real data plane."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterator
from datetime import timedelta

import pytest

from controlplane.core.node_record import NodeRecord
from controlplane.operations.options import now_text
from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.browser import Browser
from tests.support.clients import dial
from tests.support.consul import Agent
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.tls import CertificateAuthority
from tests.support.wait import wait_for

pytestmark = [
    pytest.mark.needs("chromium", "chromedriver"),
]

WORD = "open-sesame"
CHECKED = {"active": {"type": "tcp", "interval": "200ms", "timeout": "200ms", "fall": 1, "rise": 1}}
MANY = 500
ENTER = "\ue007"
ESCAPE = "\ue00c"
RIGHT = "\ue014"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all; each test has a daemon, and so an origin, of its own."""
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    """A light window of the usual size, which ends on an empty page."""
    chromium.resize(1280, 900)
    chromium.prefer(dark=False)
    chromium.complaints()
    yield chromium
    chromium.open("about:blank")


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("d"))


@pytest.fixture
def plane(control) -> Iterator[DataPlane]:
    """One data plane."""
    with DataPlane(name="a", runtime_dir=control.runtime_dir) as plane:
        yield plane


class Node:
    """A daemon with a dashboard."""

    def __init__(self, daemon: Daemon, url: str) -> None:
        self.daemon = daemon
        self.url = url


@contextlib.contextmanager
def dashboard(control: Control, content: object, *, token: bool = False) -> Iterator[Node]:
    """Run the daemon with this lb.yaml until it has applied it."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(HeldPort())
        arguments: list[object] = ["--http", port.address]
        if token:
            file = control.directory / "token"
            file.write_text(f"{WORD}\n")
            arguments += ["--http-token-file", file]
        daemon = stack.enter_context(Daemon(control, control.write(content), *arguments))
        control.wait_status(lambda status: status["converged"] and status["generation"] >= 1)
        yield Node(daemon, f"http://{port.address}/")


def enter(browser: Browser, url: str, token: str = WORD) -> None:
    """Open the page and give it the token."""
    browser.open(url)
    browser.wait_true("!document.getElementById('gate').hidden")
    browser.type("#gate-token", token + ENTER)


def choose(browser: Browser, view: str) -> None:
    """Show a view."""
    browser.script("return import('/state.js').then(({act}) => act.choose(arguments[0]))", view)


def row(service: str, backend: str) -> str:
    """Select a backend's row."""
    return f'tr[data-backend="{service}/{backend}"]'


def test_what_changes_is_shown(browser, control, address, plane):
    """Backends, traffic, health with its cause, events and generations appear without a reload."""
    with LineServer("one") as one, LineServer("two") as two, contextlib.ExitStack() as stack:
        first = {"id": "one", "address": one.address}
        second = {"id": "two", "address": two.address}
        page = stack.enter_context(dashboard(control, document(address, first, health=CHECKED)))
        browser.open(page.url)
        browser.wait_text(row("web", "one"), "up")
        browser.wait_text("#node", "converged")
        assert "Nothing" in browser.text("#attention-none")
        control.write(document(address, first, second, health=CHECKED))
        browser.wait_text(row("web", "two"), "up")
        browser.wait_text("#node", "generation 2")
        with Load(address, rate=50, flows=2):
            busy = "document.querySelector('tr[data-backend] .rate').innerText"
            browser.wait_true(f"parseFloat({busy}) > 5")
            browser.wait_true(
                "document.querySelector('.tile path.first').getAttribute('d').split('L').length > 2"
            )
            browser.wait_true("document.querySelectorAll('.tile .value')[2].innerText.endsWith('%')")
        two.stop()
        browser.wait_text(row("web", "two"), "down")
        browser.wait_text(row("web", "two"), "refused")
        browser.wait_text("#attention-list", "web: 1 of 2 backends: two")
        browser.click("#tab-events")
        browser.wait_text("#event-list", "web/two")
        assert "on a" in browser.text("#event-list")
        browser.click("#tab-history")
        browser.wait_text("#history-list", "backend web/two")
        assert [each.split("\n")[0] for each in browser.texts("#history-list > li")] == [
            "Generation 2",
            "Generation 1",
        ]
        assert browser.complaints() == []


def test_refused_clients_are_the_first_thing(browser, control, address, plane):
    """What clients met in the last minute stands above everything else, though every backend looks well."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        browser.wait_text(row("web", "127.0.0.1:1"), "unknown")
        assert "Nothing" in browser.text("#attention-none")
        assert control("drain", "web", "127.0.0.1:1").code == 0
        assert control("enable", "web", "127.0.0.1:1").code == 0
        for _ in range(3):
            with dial(address) as client:
                assert client.recv(1) == b""
        said = "web: 3 of 3 clients in the last minute were refused: connect_failed. Try the backends by hand"
        browser.wait_text("#attention-list", said)
        assert browser.texts("#attention-list li")[0].lower().startswith("not served")
        browser.wait_true("document.title == '(1) livelb'")
        assert browser.complaints() == []


def test_a_wrong_check_is_said_to_be_one(browser, control, address, plane):
    """With nobody healthy the page says who serves all the same, why each one is down, and what may be wrong."""
    wrong = {**CHECKED["active"], "type": "expect", "expect": {"send": "a\n", "expect": "never"}}
    with LineServer("one") as one, LineServer("two") as two:
        backends = [{"id": "one", "address": one.address}, {"id": "two", "address": two.address}]
        health = {**CHECKED, "active": {**wrong, "timeout": "1s"}}
        with dashboard(control, document(address, *backends, health=health)) as page:
            browser.open(page.url)
            browser.wait_text(row("web", "one"), "but reachable")
            said = "web: none of 2 backends healthy, so health is ignored: 2 that can be reached serve. The checks may be wrong."
            browser.wait_text("#attention-list", said)
            browser.wait_text("#tiles", "2 of 2")
            browser.wait_text("#service-list", "2 of 2 serving")
            assert browser.complaints() == []


def test_without_a_token_there_is_nothing_to_press(browser, control, address, plane):
    """A daemon without a token shows everything, and no action."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        browser.wait_text("#session", "Read-only")
        browser.wait_true("document.querySelectorAll('tr[data-backend]').length == 1")
        assert not browser.script(
            "return [...document.querySelectorAll('td.act')].some((each) => each.offsetParent)"
        )


def test_drain_enable_weight_and_rollback_by_click(browser, control, address, plane):
    """With the token an operator drains, enables, weighs and rolls back from the page; a wrong one opens nothing."""
    backends = [{"id": key, "address": f"127.0.0.1:{port}"} for key, port in (("one", 1), ("two", 2))]
    with dashboard(control, document(address, *backends), token=True) as page:
        enter(browser, page.url, "wrong")
        browser.wait_text("#gate-error", "not accepted")
        browser.type("#gate-token", WORD + ENTER)
        browser.wait_text(row("web", "one"), "enabled")
        browser.click(row("web", "one") + " .act button")
        assert "other usable backend" in browser.text("#backend-impact")
        assert browser.text("#backend-submit") == "Drain"
        browser.click("#backend-submit")
        browser.wait_text(row("web", "one"), "by http")
        assert plane.backend("web", "one")["state"] == "drain"
        browser.click(row("web", "two") + " .act button")
        assert "No other backend" in browser.text("#backend-impact")
        browser.click("#backend-form [data-close]")
        browser.click(row("web", "one") + " .act button")
        assert browser.text("#backend-submit") == "Enable"
        browser.click("#backend-submit")
        wait_for(lambda: plane.backend("web", "one")["state"] == "enabled", "the backend to be enabled")
        browser.wait_true("!document.getElementById('backend-dialog').open")
        browser.click(row("web", "one") + " .act button + button")
        browser.script("document.getElementById('backend-weight').value = ''")
        browser.type("#backend-weight", "7" + ENTER)
        wait_for(lambda: plane.backend("web", "one")["weight"] == 7, "the weight")
        control.write(document(address, backends[0]))
        browser.wait_text("#node", "generation 2")
        browser.click("#tab-history")
        browser.wait_text("#history-list", "Generation 1")
        browser.click("#history-list > li:nth-child(2) button")
        browser.click("#rollback-submit")
        browser.wait_text("#node", "generation 3")
        assert len(plane.status()["services"]["web"]["backends"]) == 2
        browser.click("#session")
        browser.wait_true("!document.getElementById('gate').hidden && document.getElementById('main').hidden")
        assert browser.script("return sessionStorage.length") == 0


def test_daemon_restarts(browser, control, address, plane):
    """While nobody answers, the page says since when and keeps what it knew; then it goes on by itself."""
    with dashboard(control, document(address, "127.0.0.1:1"), token=True) as page:
        enter(browser, page.url)
        browser.wait_text(row("web", "127.0.0.1:1"), "enabled")
        page.daemon.kill()
        browser.wait_text("#banner", "No answer from the daemon since")
        browser.wait_text("#live", "As of")
        assert browser.script("return document.body.classList.contains('stale')")
        assert "127.0.0.1:1" in browser.text(row("web", "127.0.0.1:1"))
        browser.click("#banner-retry")
        browser.wait_text("#banner", "No answer from the daemon since")
        page.daemon.start()
        # The page tries again by itself, too: its button may go before a mouse could reach it.
        retry = "document.getElementById('banner-retry').click()"
        browser.wait_true(f"document.getElementById('banner').hidden || ({retry}, false)")
        browser.wait_text("#live", "Live")
        browser.click("#tab-events")
        control.write(document(address, "127.0.0.1:2"))
        browser.wait_text("#event-list", "generation 2")


def test_daemon_that_hangs_is_old_news(browser, control, address, plane):
    """A daemon that accepts and says nothing is not shown as live."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        browser.wait_text("#live", "Live")
        page.daemon.send_signal(signal.SIGSTOP)
        try:
            browser.wait_text("#banner", "No answer from the daemon since")
        finally:
            page.daemon.send_signal(signal.SIGCONT)
        browser.wait_text("#live", "Live")


def test_data_plane_that_is_gone_is_named(browser, control, address, plane):
    """A data plane that hangs is named with the age of its figures."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        browser.wait_text("#node", "converged")
        plane.send_signal(signal.SIGSTOP)
        try:
            browser.wait_text("#attention-list", "Data plane a:")
            browser.wait_text("#node", "not converged")
        finally:
            plane.send_signal(signal.SIGCONT)


def test_what_drains_and_what_is_gone_are_told_apart(browser, control, address, plane):
    """A process that drains has a card of its own, with what is left; one that has died has the command that helps."""
    with (
        LineServer("a") as server,
        dashboard(control, document(address, server.address)) as node,
        dial(address) as client,
        DataPlane(name="b", runtime_dir=control.runtime_dir) as dead,
    ):
        client.sendall(b"x\n")
        assert client.recv(100)
        browser.open(f"{node.url}#dataplanes")
        plane.send_signal(signal.SIGTERM)
        dead.kill()
        browser.wait_text("#draining-list", "draining")
        browser.wait_text("#draining-list", "1 connection")
        browser.wait_text("#attention-list", f"rm {dead.socket}")


def test_bad_file_is_shown_with_its_line(browser, control, address, plane):
    """What the file says wrongly stands at the top and in its source."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        control.write("version: 1\nservices:\n  web:\n    listen: nowhere\n    backends: []\n")
        browser.wait_text("#attention-list", "line 4")
        browser.click("#attention-list button")
        browser.wait_text("#source-list", "error")


def test_what_discovery_holds_back_is_explained(browser, control, address, plane):
    """A source that is held says what is kept, why, and for how long; what was skipped is named."""
    held = {"why": "shrink", "missing": ["n1/a", "n2/b"], "count": 2, "seen": 1, "ends_in_s": 12.5}
    source = {
        "name": "consul redis",
        "services": ["cache"],
        "state": "held",
        "since": "2026-01-01T00:00:00.000Z",
        "last_error": None,
        "age_s": 3.2,
        "source": "consul",
        "counts": {"passing": 1, "rejected": 0},
        "rejected": [{"id": "n3/c", "why": "port 0"}],
        "warnings": [],
        "held": {**held, "since": "2026-01-01T00:00:00.000Z"},
    }
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(f"{page.url}#sources")
        browser.wait_text("#live", "Live")
        # In one turn, so that no answer of the daemon comes between.
        shown = browser.script(
            """
            return import("/cards.js").then(({showSources}) => {
                showSources({sources: [arguments[0]]});
                return document.getElementById("source-list").innerText;
            })
            """,
            source,
        )
    assert "Consul lists 1 and no longer 2 that run here" in shown
    assert "for another 12 s" in shown
    assert "n1/a, n2/b" in shown
    assert "n3/c: port 0" in shown
    assert "0 rejected" not in shown


def test_failed_push_is_named_and_the_focus_stays(browser, control, address, plane):
    """What a data plane refuses stands at the top with its reason; a line whose age counts up is the same line."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page, LineServer("other") as other:
        browser.open(page.url)
        control.write(document(other.address, "127.0.0.1:1"))
        browser.wait_text("#attention-list", "ddress already in use")
        browser.click("#attention-list button")
        browser.wait_text("#source-list", "ddress already in use")
        plane.send_signal(signal.SIGSTOP)
        try:
            browser.wait_text("#attention-list", "figures are")
            browser.script(
                "[...document.querySelectorAll('#attention-list button')]"
                ".find((each) => each.innerText.includes('figures are')).focus()"
            )
            before = browser.text("#attention-list")
            browser.wait_true(
                "document.getElementById('attention-list').innerText.trim() != arguments[0]", before
            )
            assert "figures are" in browser.script("return document.activeElement.innerText")
        finally:
            plane.send_signal(signal.SIGCONT)


def test_what_is_much_is_folded(browser, control, address, plane):
    """More than ten problems, and a diff of more than eight lines, are shown when somebody wants them."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(HeldPort()) for _ in range(12)]
        services = {f"s-{at:02}": {"listen": port.address, "backends": []} for at, port in enumerate(ports)}
        page = stack.enter_context(dashboard(control, {"version": 1, "services": services}))
        browser.open(page.url)
        browser.wait_text("#attention-list", "Show 2 more")
        browser.click("#attention-list li:last-child button")
        browser.wait_text("#attention-list", "s-11 has no backends")
        browser.click("#tab-history")
        browser.wait_text("#history-list", "24 changes")
        assert browser.script("return document.querySelectorAll('.diff li').length") == 0
        browser.click("#history-list summary")
        browser.wait_true("document.querySelectorAll('.diff li').length == 24")
        assert "service s-11" in browser.text("#history-list")


def test_newest_event_is_the_one_that_came_last(browser, control, address, plane):
    """A clock that is set back, and events that are told again, change nothing of the order."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(f"{page.url}#events")
        browser.wait_text("#event-list", "generation 1")
        told = [("aa-1", "2100-01-01T12:00:00.000Z"), ("aa-2", "2100-01-01T11:00:00.000Z")]
        for known_by, at in (*told, told[0]):
            event = {"id": known_by, "at": at, "type": "backend_up", "backend": known_by}
            script = "return import('/events.js').then((events) => events.takeEvent(arguments[0]))"
            browser.script(script, json.dumps(event))
        browser.wait_true("document.querySelector('#event-list li').innerText.includes('aa-2')")
        assert browser.text("#event-list").count("aa-1") == 1
        assert "aa-1" in browser.texts("#event-list li")[1]


def test_events_are_filtered_and_held_still(browser, control, address, plane):
    """The filter shows what it names; paused, nothing moves; resumed, what came meanwhile is there."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(f"{page.url}#events")
        browser.wait_text("#event-list", "generation 1")
        browser.click("#event-pause")
        assert browser.script("return document.getElementById('event-pause').ariaPressed") == "true"
        shown = browser.text("#event-list")
        control.write(document(address, "127.0.0.1:2"))
        browser.wait_text("#node", "generation 2")
        assert browser.text("#event-list") == shown
        browser.click("#event-pause")
        browser.wait_text("#event-list", "generation 2")
        browser.type("#event-filter", "file generation")
        browser.wait_true("document.querySelectorAll('#event-list li').length == 2")
        browser.type("#event-filter", " nothing-like-it")
        browser.wait_text("#event-none", "No event")


def test_many_backends(browser, control, address, plane):
    """Five hundred rows are made once, then only written to; the filter finds one."""
    backends = [{"id": f"b-{number:03}", "address": f"127.0.0.1:{number + 1}"} for number in range(MANY)]
    with dashboard(control, document(address, *backends)) as page:
        browser.open(page.url)
        browser.wait_true(f"document.querySelectorAll('tr[data-backend]').length == {MANY}")
        browser.script(
            """
            window.made = 0;
            window.answers = 0;
            const list = document.getElementById("service-list");
            const rows = (entry) => [...entry.addedNodes, ...entry.removedNodes].filter((node) => node.nodeType === 1);
            new MutationObserver((entries) => entries.forEach((entry) => { made += rows(entry).length; }))
                .observe(list, {childList: true, subtree: true});
            return import("/state.js").then(({act}) => {
                const shown = act.show;
                act.show = () => { answers += 1; shown(); };
            });
            """
        )
        browser.wait_true("window.answers >= 3")
        assert browser.script("return window.made") == 0
        browser.type("#filter", "b-123")
        browser.wait_true("document.querySelectorAll('tr[data-backend]').length == 1")
        assert "1 backend shown" in browser.text("#shown")


@pytest.mark.parametrize("token", [False, True])
def test_nothing_sticks_out(browser, control, address, plane, token):
    """At every width each view fits without scrolling sideways, long names included."""
    name = "a-backend-with-a-rather-long-name.in-some-datacenter.example"
    backends = [{"id": name, "address": "127.0.0.1:1"}, "127.0.0.1:2"]
    with dashboard(control, document(address, *backends), token=token) as page:
        browser.open(page.url)
        if token:
            enter(browser, page.url)
        browser.wait_true("document.querySelectorAll('tr[data-backend]').length == 2")
        for width in (360, 700, 1024, 1280):
            browser.resize(width, 780)
            for view in ("events", "history", "sources", "dataplanes", "nodes", "services"):
                choose(browser, view)
                browser.wait_true("document.scrollingElement.scrollWidth <= arguments[0]", width)
            tabs = "[...document.querySelectorAll('[role=tab]')].map((each) => each.getBoundingClientRect())"
            browser.wait_true(f"{tabs}.every((box) => box.left >= 0 && box.right <= arguments[0])", width)
            if token:
                right = "Math.max(...[...document.querySelectorAll('td.act button')].map((each) => each.getBoundingClientRect().right))"
                browser.wait_true(f"{right} < arguments[0] - 8", width)


def test_the_token_card_stands_free(browser, control, address, plane):
    """On a phone the card that asks for the token keeps off both edges, as far from the one as from the other."""
    with dashboard(control, document(address, "127.0.0.1:1"), token=True) as page:
        browser.resize(360, 780)
        browser.open(page.url)
        browser.wait_true("!document.getElementById('gate').hidden")
        card = "const box = document.getElementById('gate').getBoundingClientRect();"
        left, right = browser.script(f"{card} return [box.left, innerWidth - box.right]")
        assert left == right
        assert left >= 8


def test_nothing_looks_live_before_the_first_answer(browser, control, address, plane):
    """Until the daemon has answered the dot is not green, and a word says why."""
    dot = "return getComputedStyle(document.getElementById('live'), '::before').backgroundColor"
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.devtools("Network.enable")
        browser.devtools("Network.setBlockedURLs", urls=["*/app.js"])
        try:
            browser.open(page.url)
            assert (
                browser.script("return getComputedStyle(document.getElementById('live')).display") == "none"
            )
        finally:
            browser.devtools("Network.setBlockedURLs", urls=[])
            browser.devtools("Network.disable")
        browser.complaints()  # that a script was blocked
        browser.devtools("Fetch.enable", patterns=[{"urlPattern": "*/access.json"}])
        try:
            browser.open(page.url)
            browser.wait_text("#live", "Connecting")
            waiting = browser.script(dot)
        finally:
            browser.devtools("Fetch.disable")
        browser.wait_text("#live", "Live")
        assert waiting != browser.script(dot)
        assert browser.complaints() == []


def test_a_bar_of_health_is_told_in_words(browser, control, address, plane):
    """Nobody needs to see colours to know how many backends are in which condition."""
    with LineServer("one") as one, HeldPort() as nobody, HeldPort() as other:
        backends = [
            {"id": "one", "address": one.address},
            {"id": "two", "address": nobody.address},
            {"id": "three", "address": other.address, "state": "drain"},
            {"id": "four", "address": "127.0.0.1:2", "weight": 0, "state": "disabled"},
        ]
        with dashboard(control, document(address, *backends, health=CHECKED)) as page:
            browser.open(page.url)
            words = "1 up, 1 down, 1 drained, 1 disabled"
            browser.wait_text("#tiles", words)
            labels = (
                "[...document.querySelectorAll('.health-bar')].map((each) => each.getAttribute('aria-label'))"
            )
            browser.wait_true(f"{labels}.every((label) => label === arguments[0])", words)
            browser.wait_true(f"{labels}.length === 2")


def test_a_node_without_services_needs_attention(browser, control, plane):
    """That nothing listens is said, and is over with the first service."""
    with HeldPort() as port, dashboard(control, {"version": 1, "services": {}}) as page:
        browser.open(page.url)
        browser.wait_text("#attention-list", "No service is configured")
        control.write(document(port.address, {"id": "one", "address": "127.0.0.1:1", "state": "drain"}))
        browser.wait_text("#service-list", "web")
        browser.wait_true("!document.getElementById('attention-list').innerText.includes('No service')")


def test_a_node_that_is_taken_out(browser, control, address, plane):
    """Who takes it out, how far that has got, and what takes it back; no line is left once it is enabled."""
    with dashboard(control, document(address, {"id": "one", "address": "127.0.0.1:1"})) as page:
        browser.open(page.url)
        assert control("node", "drain", "--settle", "0s").code == 0
        browser.wait_text("#attention-list", "takes this node out, withdrawn for")
        browser.wait_text("#attention-list", "lb-control node enable")
        assert control("node", "enable").code == 0
        browser.wait_true("!document.getElementById('attention-list').innerText.includes('takes this node')")


def test_service_that_nobody_serves_is_named_with_the_reason(browser, control, address, plane):
    """One line says it, and not its source once more, nor that no service is configured."""
    web = {"listen": address, "discover": {"consul": {"service": "web"}}}
    asked = {"version": 1, "consul": {"address": "http://127.0.0.1:1"}, "services": {"web": web}}
    with dashboard(control, asked) as page:
        browser.open(page.url)
        browser.wait_text("#attention-list", "service web is not served: unreachable: http://127.0.0.1:1: ")
        shown = browser.script("return document.getElementById('attention-list').innerText")
        assert ("No service" in shown, "consul:web" in shown) == (False, False), shown
        control.write(document(address, "127.0.0.1:1"))
        browser.wait_true("!document.getElementById('attention-list').innerText.includes('not served')")


def test_what_is_over_again_is_shown_as_good(browser, control, address, plane):
    """The end of an override, and of a snapshot that could not be saved, is no warning."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        browser.wait_text("#live", "Live")
        browser.click("#tab-events")
        take = "return import('/events.js').then((events) => events.takeEvent(arguments[0]))"
        tones = {
            "override": "warn",
            "override_ended": "good",
            "snapshot_not_saved": "bad",
            "snapshot_saved": "good",
        }
        for kind, tone in tones.items():
            browser.script(take, json.dumps({"type": kind, "at": "2026-01-01T00:00:00.000Z"}))
            word = kind.replace("_", " ")
            pills = "[...document.querySelectorAll('#event-list .pill')]"
            browser.wait_true(
                f"{pills}.some((each) => each.textContent === arguments[0] && each.dataset.tone === arguments[1])",
                word,
                tone,
            )


def test_dark(browser, control, address, plane):
    """The page takes the colours that the user prefers."""
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        colour = "return getComputedStyle(document.body).backgroundColor"
        light = browser.script(colour)
        browser.prefer(dark=True)
        assert browser.script(colour) != light


def test_keyboard(browser, control, address, plane):
    """Everything is reached without a mouse: the filter, the views, a dialog and the way out of it."""
    with dashboard(control, document(address, "127.0.0.1:1", "127.0.0.1:2"), token=True) as page:
        enter(browser, page.url)
        browser.wait_true("document.querySelectorAll('tr[data-backend]').length == 2")
        browser.press("/")
        assert browser.script("return document.activeElement.id") == "filter"
        browser.script("document.getElementById('tab-services').focus()")
        browser.press(RIGHT)
        assert browser.script("return document.activeElement.id") == "tab-events"
        assert not browser.script("return document.getElementById('events').hidden")
        choose(browser, "services")
        browser.script("document.querySelector('td.act button').focus()")
        browser.press(ENTER)
        browser.wait_true("document.getElementById('backend-dialog').open")
        browser.press(ESCAPE)
        browser.wait_true("!document.getElementById('backend-dialog').open")
        assert plane.backend("web", "127.0.0.1:1")["state"] == "enabled"
        browser.press(ENTER)
        browser.wait_true("document.activeElement.id == 'backend-submit'")
        browser.press(ENTER)
        browser.wait_text(row("web", "127.0.0.1:1"), "drain")
        assert plane.backend("web", "127.0.0.1:1")["state"] == "drain"


def test_what_the_api_says_is_text(browser, control, address, plane):
    """Markup in an event is shown as it is written, and the browser refuses to make any of a string."""
    evil = "<img src=x onerror=alert(1)>"
    with dashboard(control, document(address, "127.0.0.1:1")) as page:
        browser.open(page.url)
        browser.wait_text("#live", "Live")
        browser.click("#tab-events")
        event = {"type": "backend_down", "at": "2026-01-01T00:00:00.000Z", "service": evil, "cause": evil}
        take = "return import('/events.js').then((events) => events.takeEvent(arguments[0]))"
        browser.script(take, json.dumps(event))
        browser.wait_text("#event-list", evil)
        assert browser.script("return document.images.length") == 0
        refused = "try { document.body.innerHTML = 'x' } catch (error) { return error.name }"
        assert browser.script(refused) == "TypeError"


def put_node(agent: Agent, name: str, query: str = "", **more: object) -> None:
    """Have the record of another node in Consul."""
    told = {"node": name, "at": now_text(), "livelb": "0.1.0", "content": "1" * 64, **more}
    record = NodeRecord(**told).encode()
    assert agent.request("PUT", f"/v1/kv/livelb/edge/nodes/{name}{query}", record) == (200, True)


def new_session(agent: Agent) -> str | None:
    """Make one; None: the agent has not registered itself yet."""
    status, answer = agent.request("PUT", "/v1/session/create", {})
    return answer["ID"] if status == 200 else None


@pytest.mark.needs("consul")
def test_the_nodes_of_a_cluster_are_shown(browser, control, address, plane):
    """Who is live, gone or behind, and why; without Consul the last picture, and since when it is the last one."""
    with LineServer("one") as one, Agent() as agent, contextlib.ExitStack() as stack:
        content = document(address, one.address)
        content |= {"consul": {"address": agent.address}, "cluster": {"name": "edge", "node": "n1"}}
        same = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        session = wait_for(lambda: new_session(agent), "an agent that has registered itself")
        put_node(
            agent, "n2", f"?acquire={session}", content=same, reason="main: <b>draining</b>", since=now_text()
        )
        put_node(agent, "n3")
        page = stack.enter_context(dashboard(control, content))
        browser.open(f"{page.url}#nodes")
        browser.wait_text(
            "#nodes-head", "Cluster edge: 2 of 3 nodes live; not all run the same. Seen from n1."
        )
        browser.wait_text("#node-list", "same as all")
        shown = browser.text("#node-list")
        assert "Behind: not all its data planes run generation 0" in shown
        assert "main: <b>draining</b>" in shown
        assert "its daemon was killed" in shown
        assert browser.text("#nodes-error") == ""
        browser.wait_text("#attention-list", "Of the cluster edge, n2 is behind, n3 is gone.")
        agent.kill()
        browser.wait_text("#nodes-error", "What runs goes on without Consul.")
        assert "2 of 3 nodes live" in browser.text("#nodes-head")
        assert browser.complaints() == []


def test_without_a_cluster_the_view_of_nodes_says_so(browser, control, address, plane):
    """And how to join one."""
    with LineServer("one") as one, dashboard(control, document(address, one.address)) as page:
        browser.open(f"{page.url}#nodes")
        browser.wait_text("#nodes-none", "belongs to no cluster")
        assert browser.complaints() == []


def test_what_a_service_has_to_do_with_tls(browser, control, address, plane, tmp_path):
    """Whom it takes, its certificates with their ends, how handshakes went, and what TLS to its backends is like."""
    authority = CertificateAuthority(tmp_path)
    soon = authority.issue("soon.test", lasts=timedelta(days=3, hours=1))
    later = authority.issue("later.test", "*.later.test", lasts=timedelta(days=60, hours=1), algorithm="rsa")
    with LineServer("one") as one, HeldPort() as other:
        quiet = {"health": {"active": {"type": "none"}}}
        services = {
            "web": {
                "listen": address,
                "backends": [one.address],
                "match": {"sni": ["soon.test", "*.later.test"]},
                "tls": {"certificates": [soon.spec, later.spec]},
                **quiet,
            },
            "rest": {"listen": address, "backends": [one.address], **quiet},
            "upstream": {
                "listen": other.address,
                "backends": [one.address],
                "backend_tls": {"ca": str(authority.ca), "server_name": "db.test"},
                **quiet,
            },
        }
        with dashboard(control, {"version": 1, "services": services}) as page:
            for name in ("soon.test", "www.later.test"):
                with authority.client_context().wrap_socket(dial(address), server_hostname=name) as client:
                    client.sendall(b"hello\n")
                    assert client.recv(100) == b"one:hello\n"
            browser.open(page.url)
            browser.wait_text("#service-list", "2 handshakes")
            text = browser.text("#service-list")
            for said in (
                "*.later.test, soon.test",
                "ends in 3 d",
                "ends in 60 d",
                "later.test, *.later.test",
                "2 handshakes, 0% resumed, TLSv1.3 100%",
                f"verified by {authority.ca}, as db.test",
            ):
                assert said in text
            tones = "return [...document.querySelectorAll('.tls-certificates .pill')].map((each) => each.dataset.tone)"
            assert browser.script(tones) == ["warn", "good"]
            hidden = "return [...document.querySelectorAll('.service')].filter((each) => each.querySelector('.tls').hidden).length"
            assert browser.script(hidden) == 1, "a plain service has no such lines"
            browser.wait_text("#attention-list", "ends in 3 d, and nobody has renewed it")
            assert browser.complaints() == []
