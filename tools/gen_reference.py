"""Writes docs/reference from the code, or tells with `--check` which pages are not what the code says."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from click import Command, Context, Group

from controlplane.cli import entry
from dataplane import cli as dataplane_cli
from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.core.tls_cause import TlsCause
from dataplane.report.reader import MAX_BACKENDS
from schemas import api, environment, nodes, replies, status
from tools import reference_code as code
from tools import reference_errors
from tools.reference_config import config, table
from tools.reference_texts import CALLS, CONTROL_CALLS, CONTROL_EVENTS, EVENTS, SKIPS, VARIABLES, Call

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs/reference"
NOTE: Final = "<!-- Made from the code by tools/gen_reference.py: `make docs`. Do not edit. -->"
WIDTH: Final = 80


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not current")
    check: bool = parser.parse_args().check
    made = pages()
    stored = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    stale = sorted(name for name in made.keys() | stored.keys() if made.get(name) != stored.get(name))
    for name in stale:
        print(f"docs/reference/{name}: {'not current: make docs' if check else 'written'}")
        if check:
            continue
        if name in made:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / name).write_text(made[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    sys.exit(1 if check and stale else 0)


def pages() -> dict[str, str]:
    """Return every page by file name."""
    made = {
        "config.md": config(),
        "environment.md": _environment(),
        "commands.md": _commands(),
        "api.md": _api(),
        "metrics.md": _metrics(),
        "words.md": _words(),
        "events.md": _events(),
    }
    return {name: "\n".join([NOTE, "", *lines]).rstrip() + "\n" for name, lines in made.items()}


def _environment() -> Iterator[str]:
    yield from (
        "# Environment",
        "",
        "`lb-dataplane` runs one service, called `default`, from these variables if `BACKENDS` is set and there is no",
        "`--config`. A value that is wrong is an error that names the variable; an empty one counts as unset.",
        "",
    )
    rows = (
        (f"`{name}`", f"`{'.'.join(map(str, path))}`", VARIABLES[name])
        for name, (path, _) in environment._VARIABLES.items()  # noqa: SLF001 - the table itself is what is documented
    )
    yield from table(("variable", "key of the service", "value"), rows)
    yield from (
        "Both commands also read where their directories are, and what is the node's own:",
        "",
        "| variable | what for | if unset |",
        "|---|---|---|",
        "| `LB_RUNTIME_DIR` | sockets | `/run/lb` for root, else `$XDG_RUNTIME_DIR/lb` |",
        "| `LB_STATE_DIR` | what is kept over a restart | `/var/lib/lb` for root, else `$XDG_STATE_HOME/lb`, else `~/.local/state/lb` |",
        "| `NODE_NAME`, `NODE_IP`, other `NODE_...` | what `${NODE_NAME}` stands for in an `lb.yaml` ([one file for many nodes](../topics/control-plane.md#one-file-for-many-nodes)) | `NODE_NAME` and `NODE_IP`, for the control plane: what the node's Consul agent says |",
        "",
        "`lb-dataplane` reads one more:",
        "",
        "| variable | what for | if unset |",
        "|---|---|---|",
        "| `LIVELB_INTERPRETED` | `1`: run the connection path interpreted, though it is there compiled; to build: leave it so | the compiled form runs if there is one |",
    )


# --- commands -------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    yield from ("# Commands", "", "What `--help` says.", "", "## lb-dataplane", "")
    yield from _help("lb-dataplane", dataplane_cli.main)
    yield from ("## lb-control", "")
    group = entry.cli
    yield from _help("lb-control", group)
    context = Context(group, info_name="lb-control")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # noqa: S101 - it was listed
        yield from (f"### {name}", "")
        yield from _help(f"lb-control {name}", command)
        for sub, each in command.commands.items() if isinstance(command, Group) else ():
            yield from (f"### {name} {sub}", "")
            yield from _help(f"lb-control {name} {sub}", each)


def _help(name: str, command: Command) -> Iterator[str]:
    context = Context(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield from ("```text", *command.get_help(context).splitlines(), "```", "")


# --- APIs -----------------------------------------------------------------------------------------


def _api() -> Iterator[str]:
    yield from (
        "# APIs",
        "",
        "HTTP/1.1 and JSON. Each process serves a Unix socket of mode 0600; who may use it is in",
        "[security](../topics/security.md). Try one with",
        "`curl --unix-socket /run/lb/dataplane-main.sock http://localhost/v1/status`.",
        "",
        "Every answer that is an error has one body: `{code, message, details: [{path, message}]}`. Bodies have at most",
        "8 MiB. Times are RFC 3339 in UTC. In `GET /v1/events` each event is one server-sent event, with a comment every",
        "10 s when there is none; see [events](events.md).",
        "",
        "## Of a data plane",
        "",
        "`dataplane-NAME.sock` in the runtime directory; over TCP with `--api`.",
        "",
    )
    yield from _calls(CALLS, code.data_routes())
    yield from (
        "## Of the daemon",
        "",
        "`control.sock` in the runtime directory; over TCP with `lb-control run --http`.",
        "",
    )
    yield from _calls(CONTROL_CALLS, code.control_routes())
    yield from (
        "## Error codes",
        "",
        "What to do about each: [troubleshooting](../troubleshooting.md#error-codes).",
        "",
    )
    yield from table(
        ("code", "HTTP status", "API"),
        ((f"`{each.code}`", str(each.status), each.plane) for each in code.error_codes()),
    )
    yield from ("## Bodies", "")
    for module in (replies, reference_errors, api, status, nodes):
        for name, (about, fields) in code.typed_dicts(module).items():
            yield from (f"### {name}", "", about, "")
            rows = ((f"`{each.name}`", _json_kind(each.kind), each.doc) for each in fields)
            yield from table(("key", "type", "meaning"), rows)


def _json_kind(annotation: str) -> str:
    """Write a Python annotation for people who read JSON."""
    words = re.sub(r"^NotRequired\[(.*)\]$", r"\1, may be missing", annotation)
    words = re.sub(r"^Annotated\[(\w+), .*?\](?= \||$)", r"\1", words)
    words = re.sub(r"\bstr\b", "text", re.sub(r"\b(int|float)\b", "number", words))
    words = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "`"), words)
    for python, json in (
        ("list[", "list of "),
        ("dict[str, ", "mapping to "),
        ("]", ""),
        ("None", "null"),
        (" | ", " or "),
    ):
        words = words.replace(python, json)
    return words


def _calls(described: Mapping[tuple[str, str], Call], served: set[tuple[str, str]]) -> Iterator[str]:
    if described.keys() != served:
        raise SystemExit(f"tools/reference_texts.py: calls that differ: {sorted(described.keys() ^ served)}")
    rows = ((f"`{method} {path}`", each.takes, each.does) for (method, path), each in described.items())
    yield from table(("call", "takes", "does"), rows)


# --- metrics, words, events -----------------------------------------------------------------------


def _metrics() -> Iterator[str]:
    yield from (
        "# Metrics",
        "",
        "`GET /metrics` on a data plane's socket, and over TCP with `lb-dataplane --metrics`, in the text format of",
        "Prometheus. How to scrape, what to watch, alerts and a dashboard: [monitoring](../topics/monitoring.md).",
        "",
        f'A service of more than {MAX_BACKENDS} backends has one series for all of them, `backend="_all"`, and no histograms by',
        "backend.",
        "",
    )
    yield from _families(code.metric_families())
    yield from ("## Only with `--workers` above 1", "")
    yield from _families(code.supervisor_families())
    yield from (
        "## Of the daemon",
        "",
        "`GET /metrics` on `control.sock`, or over TCP with `lb-control run --http`.",
        "",
    )
    yield from _families(code.control_families())


def _families(families: Iterable[code.Family]) -> Iterator[str]:
    rows = (
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help)
        for each in families
    )
    yield from table(("name", "type", "labels", "meaning"), rows)


def _words() -> Iterator[str]:
    closes = code.member_docs(CloseReason)
    yield from (
        "# Words for endings",
        "",
        "The same words in metrics, access log, status and `explain`. What to do about each:",
        "[troubleshooting](../troubleshooting.md).",
        "",
        "## Close reasons",
        "",
        "Why a client's connection ended, whose doing it was, and what harm it was to a client that did all that it should:",
        "`status` says first how many have met such an end in the last minute.",
        "",
    )
    rows = (
        (f"`{reason.value}`", reason.source.value, reason.harm or "", closes[reason])
        for reason in CloseReason
    )
    yield from table(("reason", "source", "harm", "meaning"), rows)
    yield from ("## TLS failures", "", "Why a TLS handshake with a client or a backend failed.", "")
    failures = code.member_docs(TlsCause)
    yield from table(("cause", "meaning"), ((f"`{word}`", text) for word, text in failures.items()))
    yield from ("## Discard causes", "", "Why a pooled connection was closed without serving a client.", "")
    causes = code.member_docs(DiscardCause)
    yield from table(("cause", "meaning"), ((f"`{word}`", text) for word, text in causes.items()))
    yield from ("## Skip reasons", "", "Why `explain` does not name a backend among the candidates.", "")
    yield from table(("reason", "meaning"), ((f"`{word}`", text) for word, text in SKIPS.items()))


def _events() -> Iterator[str]:
    yield from (
        "# Events",
        "",
        "Each is one line of the data plane's log, and one server-sent event of `GET /v1/events`. All have `at`; those that a",
        "worker tells its supervisor have `worker`.",
        "",
        "## Of a data plane",
        "",
    )
    yield from _event_rows(code.data_events(), EVENTS)
    yield from (
        "## Of the daemon",
        "",
        "Every event of every data plane, with `dataplane` and its `type`; and these:",
        "",
    )
    yield from _event_rows(code.control_events(), CONTROL_EVENTS)


def _event_rows(found: Mapping[str, Sequence[str]], texts: Mapping[str, str]) -> Iterator[str]:
    if found.keys() != texts.keys():
        raise SystemExit(
            f"tools/reference_texts.py: events that differ: {sorted(found.keys() ^ texts.keys())}"
        )
    rows = ((f"`{name}`", texts[name], ", ".join(f"`{each}`" for each in found[name])) for name in found)
    yield from table(("event", "meaning", "fields"), rows)


if __name__ == "__main__":
    main()
