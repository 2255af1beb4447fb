"""What documents show works: links lead somewhere, configuration loads, commands have the options that they are given."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from controlplane.cli import entry
from dataplane import cli as dataplane_cli
from schemas.desired import json_schema, load_desired
from schemas.variables import Variables
from tests.support.documents import parse_document
from tests.support.json_schema import Validator

ROOT = Path(__file__).resolve().parents[2]
ANY_NODE = Variables(placeholders=True)
"""Which variables a node has is its own matter."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = ROOT / "docs/reference"
NOT_OURS = "<!-- not lb.yaml -->"
"""Stands before a block of YAML that is something else's."""
SHELL = frozenset({"", "sh", "bash", "console"})


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    before: str
    """The last line before it that is not empty."""


def name_of(value: object) -> str:
    """Name a test's case."""
    if isinstance(value, Block):
        return f"{value.page.relative_to(ROOT)}:{value.line}"
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def blocks() -> Iterator[Block]:
    """Yield every fenced block of every page."""
    for page in PAGES:
        lines = page.read_text().splitlines()
        begin: int | None = None
        for number, line in enumerate(lines):
            fence = re.match(r"^\s*```(\w*)", line)
            if fence is None:
                continue
            if begin is None:
                begin = number
                continue
            language = lines[begin].strip().removeprefix("```").strip()
            before = next((each for each in reversed(lines[:begin]) if each.strip()), "")
            yield Block(page, begin + 1, language, "\n".join(lines[begin + 1 : number]), before)
            begin = None
        assert begin is None, f"{page}: a fence is not closed"


BLOCKS = list(blocks())
YAML = [block for block in BLOCKS if block.language == "yaml" and block.before != NOT_OURS]


def commands_of(text: str) -> list[str]:
    """Return the commands of a shell block, each on one line; output, comments and surroundings are left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    console = any(line.startswith("$ ") for line in joined.splitlines())
    found = []
    for line in joined.splitlines():
        if console and not line.startswith("$ "):
            continue
        for part in re.split(r"\|\||&&|[|;&]", line.removeprefix("$ ").partition(" #")[0]):
            match = re.search(
                r"(?:^|[\s/])(lb-(?:control|dataplane)\s.*|lb-dataplane$)", part.partition(" > ")[0]
            )
            if match and not part.lstrip().startswith("#"):
                found.append(match[1])
    return found


COMMANDS = [
    pytest.param(command, id=f"{name_of(block)} {command}")
    for block in BLOCKS
    if block.language in SHELL and block.page.parent != GENERATED
    for command in commands_of(block.text)
]


def parse(command: str) -> None:
    """Have click read a command line, and run nothing.

    Raises:
        click.UsageError: There is no such command or option, or an argument is missing or wrong.
    """
    name, *arguments = shlex.split(command)
    if name == "lb-dataplane":
        dataplane_cli.main.make_context(name, arguments)
        return
    command: click.Command = entry.cli
    context = command.make_context(name, arguments)
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        found, sub, rest = command.resolve_command(context, rest)
        assert sub is not None
        command, context = sub, sub.make_context(found, rest, parent=context)


def slug(heading: str) -> str:
    """Return a heading's anchor, as GitHub makes it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page."""
    outside = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", outside, flags=re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    """A relative link names a file that is there, and a heading in it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def whole_of(text: str) -> dict[str, Any]:
    """Return an lb.yaml with this block in it, which is one, or a part of one: of the file's, or of a service's keys."""
    value = parse_document(text.encode()).value
    if "version" in value:
        return value
    whole: dict[str, Any] = {
        "version": 1,
        "services": {"a": {"listen": "127.0.0.1:1", "backends": ["127.0.0.1:2"]}},
    }
    if value.keys() & {"services", "consul", "guard", "defaults", "cluster"}:
        whole |= value
    elif value.keys() & {"backends", "discover"}:
        whole["services"]["a"] = {"listen": "127.0.0.1:1", **value}
    else:
        whole["services"]["a"] |= value
    return whole


@pytest.mark.parametrize("block", YAML, ids=name_of)
def test_configuration_loads(block):
    """A block of YAML can be applied, and editors underline nothing in it."""
    whole = whole_of(block.text)
    load_desired(json.dumps(whole).encode(), ANY_NODE)
    assert Validator(json_schema()).fits(whole), "the schema for editors refuses what the balancer takes"


EXAMPLE_FILES = sorted([*(ROOT / "deploy").rglob("*.yaml"), *(ROOT / "deploy").rglob("*.yml")])
CONFIGURATIONS = [
    path for path in EXAMPLE_FILES if re.search(r"^version: 1$", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=name_of)
def test_example_files_load(path):
    """An lb.yaml that comes with the project can be applied, its first line names a schema for editors, and it fits that."""
    raw = path.read_bytes()
    load_desired(raw, ANY_NODE)
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", raw.decode())
    assert named, "the first line names no schema"
    schema = json.loads((path.parent / named[1]).read_text())
    assert schema == json_schema()
    assert Validator(schema).fits(parse_document(raw).value)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command):
    """A command line in a shell block is one that the program takes."""
    parse(command)


def test_options_that_are_mentioned_exist():
    """An option beside a command's name in running text is one of that command's."""
    wrong = []
    for page in PAGES:
        for span in re.findall(r"`(lb-(?:control|dataplane) [^`\n]*)`", page.read_text()):
            try:
                parse(span)
            except click.NoSuchOption as error:
                wrong.append(f"{page.relative_to(ROOT)}: {span}: {error.message}")
            except click.UsageError as error:
                if "No such command" in error.message:
                    wrong.append(f"{page.relative_to(ROOT)}: {span}: {error.message}")
            except (click.exceptions.Exit, ValueError):
                continue
    assert wrong == []


def test_there_is_something_to_check():
    """The patterns above find what the pages have."""
    assert len(PAGES) > 15
    assert len(YAML) > 10
    assert len(CONFIGURATIONS) > 1
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(
    "wrong", ["lb-control frobnicate", "lb-control plan x --fast", "lb-dataplane --worker 2"]
)
def test_wrong_commands_are_noticed(wrong):
    """What does not exist fails the check."""
    with pytest.raises(click.UsageError):
        parse(wrong)


def test_the_login_that_mariadb_is_checked_with_is_a_packet_and_a_goodbye():
    """What docs/topics/health.md sends: one login of protocol 4.1 without a password, of the length it says, and COM_QUIT."""
    block = next(each for each in YAML if "livelb\\0" in each.text)
    check = load_desired(block.text.encode()).services["mariadb"].health.active.expect
    assert check is not None
    sent, expected, _ = check.texts()
    length = int.from_bytes(sent[:3], "little")
    login, quit_ = sent[4 : 4 + length], sent[4 + length :]
    assert (sent[3], quit_) == (1, b"\1\0\0\0\1")
    assert login[9:32] == bytes(23), "after capabilities, packet size and character set"
    assert login[32:] == b"livelb\0" + b"\0"
    assert int.from_bytes(login[:4], "little") == 0x8201, "long password, protocol 4.1, secure connection"
    assert expected[:5] == b"\7\0\0\2\0", "the server's OK, the second packet after the greeting"
