"""The site of the documents: complete, without a broken link, and without a request to anybody else."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser

pytestmark = pytest.mark.timeout(120)  # the site is built, and read in a real browser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LOADS = re.compile(
    r"<(?:link|script|img|iframe|source|video|audio|object|embed)\b[^>]*?(?:href|src|data)=\"?([^\" >]+)"
)
PLAIN_LINK = re.compile(r'<link[^>]*rel="?(?:next|prev|canonical)\b')


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build a project's site as `make site` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site],
        cwd=project,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it once."""
    made = tmp_path_factory.mktemp("site")
    done = build(ROOT, made)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return made


def page_of(source: Path) -> str:
    """Return the folder of the site that a document's page is in."""
    name = source.relative_to(ROOT / "docs").with_suffix("").as_posix()
    return "" if name == "index" else f"{name}/"


def test_every_document_is_in_the_navigation(site):
    """Each page of docs, and the two of the project's root, can be reached from the start page's menu."""
    start = (site / "index.html").read_text()
    menu = set(re.findall(r'<a href="([^"]+)" class="md-nav__link', start))
    wanted = {page_of(page) or "." for page in PAGES} | {"project/changes/", "project/contributing/"}
    assert wanted - menu == set()


def test_nothing_is_loaded_from_elsewhere(site):
    """No font, script, style or picture comes from another host; who reads is nobody's business."""
    foreign = []
    for page in site.rglob("*.html"):
        text = "".join(tag for tag in re.findall(r"<[^>]+>", page.read_text()) if not PLAIN_LINK.match(tag))
        foreign += [target for target in LOADS.findall(text) if re.match(r"(?:https?:)?//", target)]
    for style in site.rglob("*.css"):
        foreign += re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", style.read_text())
    assert foreign == []
    assert LOADS.findall((site / "index.html").read_text())


def test_what_is_linked_outside_of_docs_has_a_page(site):
    """A link to an example or to the units of systemd leads to their content."""
    reference = (site / "reference/config/index.html").read_text()
    assert 'href="../../files/deploy/examples/lb.yaml/"' in reference
    assert "web-1" in (site / "files/deploy/examples/lb.yaml/index.html").read_text()
    units = (site / "files/deploy/systemd/index.html").read_text()
    assert {path.name for path in (ROOT / "deploy/systemd").iterdir()} <= set(
        re.findall(r"[\w@.-]+\.\w+", units)
    )


BROKEN = ("[a page](nowhere.md)", "[a heading](tutorial.md#nowhere)", "[a file](../deploy/nowhere.yaml)")


def test_a_broken_link_fails_the_build(tmp_path):
    """A page, a heading or a file that is not there is named, and there is no site."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "docs", project / "docs", ignore=shutil.ignore_patterns("images"))
    for name in ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"):
        shutil.copy(ROOT / name, project)
    (project / "tools").mkdir()
    shutil.copy(ROOT / "tools/site_hooks.py", project / "tools")
    shutil.copytree(ROOT / "deploy", project / "deploy")
    page = project / "docs/limits.md"
    page.write_text(page.read_text() + "".join(f"\nSee {broken}.\n" for broken in BROKEN))
    done = build(project, tmp_path / "site")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "limits.md" in line]
    for where in ("'nowhere.md'", "#nowhere'", "deploy/nowhere.yaml"):
        assert any(where in line for line in told), (where, done.stderr)


def test_a_page_that_is_in_no_menu_fails_the_build(tmp_path):
    """A new document is added to mkdocs.yml."""
    project = tmp_path / "project"
    (project / "docs").mkdir(parents=True)
    text = (ROOT / "mkdocs.yml").read_text()
    bare = re.sub(r"^(hooks|nav|extra_css):.*?(?=^\w|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    (project / "mkdocs.yml").write_text(f"{bare}\nnav: [index.md]\n")
    (project / "docs/index.md").write_text("# Start\n")
    assert build(project, tmp_path / "site").returncode == 0
    (project / "docs/new.md").write_text("# New\n")
    done = build(project, tmp_path / "site")
    assert done.returncode != 0
    assert "new.md" in done.stderr


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    """Serve the site."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.needs("chromium", "chromedriver")
def test_search_works_without_a_network(url):
    """The index is part of the site: a close reason leads to its advice."""
    with Browser() as browser:
        browser.open(url)
        browser.type(".md-search__input", "backend_reset")
        browser.wait_text(".md-search-result__list", "backend_reset")
        assert browser.complaints() == []


@pytest.mark.needs("chromium", "chromedriver")
def test_pages_fit_a_phone(url):
    """At 360 pixels tables and code scroll by themselves, and the page does not."""
    wide = []
    with Browser(width=360, height=780, dark=True) as browser:
        for page in ("", "reference/api/", "reference/commands/", "reference/config/", "topics/workers/"):
            browser.open(url + page)
            if browser.script("return document.documentElement.scrollWidth > innerWidth"):
                wide.append(page)
        assert browser.script("return document.body.dataset.mdColorScheme") == "slate"
    assert wide == []
