"""The reference is what the code says, and every word in the code has its advice, and the other way round."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.core.readiness import Reason
from dataplane.core.reasons import CloseReason, DiscardCause, SkipReason
from tools import gen_reference
from tools.reference_code import (
    control_events,
    control_families,
    data_events,
    error_codes,
    member_docs,
    metric_families,
    supervisor_families,
)
from tools.reference_texts import CONTROL_EVENTS, EVENTS, SKIPS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def section(title: str) -> str:
    """Return the part of the troubleshooting page below a heading of the second level."""
    text = (DOCS / "troubleshooting.md").read_text()
    return re.split(r"^## ", text.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def headings(title: str) -> list[str]:
    """Return the words that have a heading of their own in a section."""
    return re.findall(r"^### `(\w+)`$", section(title), flags=re.MULTILINE)


def rows(title: str) -> list[str]:
    """Return the words of a section's table."""
    return re.findall(r"^\| `(\w+)` \|", section(title), flags=re.MULTILINE)


def test_pages_are_current():
    """What is in docs/reference is what `make docs` would write, and nothing else is there."""
    # in a process of its own: a click command keeps the help option of its first use, and tests use commands by themselves
    checked = subprocess.run(
        [sys.executable, "-m", "tools.gen_reference", "--check"],
        cwd=DOCS.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_close_reason_has_advice():
    """Close reasons in the code and on the troubleshooting page are the same, in the same order."""
    assert headings("Close reasons") == [reason.value for reason in CloseReason]


def test_every_error_code_has_advice():
    """Error codes in the code and on the troubleshooting page are the same."""
    assert headings("Error codes") == sorted({each.code for each in error_codes()})


def test_error_codes_name_their_status():
    """The advice for a code names each HTTP status that it comes with."""
    advice = dict(
        re.findall(
            r"^### `(\w+)`\n+(.*?)(?=\n### |\Z)", section("Error codes"), flags=re.MULTILINE | re.DOTALL
        )
    )
    silent = [
        f"{each.code} {each.status}" for each in error_codes() if str(each.status) not in advice[each.code]
    ]
    assert silent == []


def test_every_discard_cause_has_advice():
    """Discard causes in the code and on the troubleshooting page are the same."""
    assert rows("Discard causes") == [cause.value for cause in DiscardCause]


def test_every_skip_reason_has_advice():
    """Skip reasons in the code, in the reference and on the troubleshooting page are the same."""
    assert rows("Skip reasons") == list(SKIPS) == [reason.value for reason in SkipReason]


def test_every_reason_is_explained():
    """Why a node is not ready: each word stands in the table of the page about it, and no other."""
    text = (DOCS / "topics/announcing.md").read_text()
    table = text.partition("| word | what it means |")[2].partition("\n\n")[0]
    words = [word for row in table.splitlines()[2:] for word in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert words == [reason.value for reason in Reason]


def test_every_event_has_a_text():
    """Events in the code and in the reference are the same."""
    assert data_events().keys() == EVENTS.keys()
    assert control_events().keys() == CONTROL_EVENTS.keys()


def test_events_are_found_in_every_form():
    """A literal, one of two, one that is put together, one from a supervisor's worker, and one that is made by hand."""
    found = data_events()
    assert {
        "applied",
        "panic_over",
        "usable_again",
        "backend_unknown",
        "worker_died",
        "dropped",
    } <= found.keys()
    assert "backend_ejected" in found
    assert "was" not in found["backend_ejected"]


def test_member_docs_are_the_text_below_each_member():
    """Every close reason and discard cause says what it means."""
    assert member_docs(CloseReason)["denied"] == "`access` refuses the client's address."
    assert all(member_docs(CloseReason).values())
    assert all(member_docs(DiscardCause).values())


def test_metrics_that_are_named_in_the_docs_exist():
    """A name in any document is a metric's, or a histogram's series; what is another program's file is left out."""
    families = {family.name for family in [*metric_families(), *supervisor_families(), *control_families()]}
    known = families | {f"{name}_{end}" for name in families for end in ("bucket", "sum", "count")}
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    not_ours = re.compile(r"^<!-- not lb.yaml -->\n```.*?^```$", re.MULTILINE | re.DOTALL)
    texts = [not_ours.sub("", page.read_text()) for page in pages]
    named = {word for text in texts for word in re.findall(r"\blb_[a-z][a-z_]+\b", text)}
    assert named - known == set()
    assert named


def test_a_call_without_a_text_is_refused(monkeypatch):
    """A route that nobody has described stops the generator, and is named."""
    described = {call: text for call, text in gen_reference.CALLS.items() if call != ("GET", "/livez")}
    monkeypatch.setattr(gen_reference, "CALLS", described)
    with pytest.raises(SystemExit, match="/livez"):
        gen_reference.pages()
