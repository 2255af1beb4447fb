"""The house: no circle of imports, no large class, no long module, and a test for each module where it is looked for."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dataplane", "controlplane", "schemas")
MAX_METHODS = 15
MAX_LINES = 400


def modules() -> dict[str, Path]:
    """Return the files of the packages by the name that imports them."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    """Return what a module says; when it is asked for: each process that runs tests imports this one."""
    return ast.parse(MODULES[name].read_text())


def imported(name: str) -> set[str]:
    """Return which of our modules a module imports anywhere, for types too."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            wholes = {f"{node.module}.{each.name}" for each in node.names}
            found |= (wholes & MODULES.keys()) or {node.module}
    return (found & MODULES.keys()) - {name}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan, 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            part = stack[at:]
            del stack[at:]
            if len(part) > 1:
                found.append(sorted(part))

    for name in sorted(edges):
        if name not in order:
            visit(name)
    return found


def test_no_circle():
    """No two modules import each other, over whatever way; imports for types count."""
    assert circles({name: imported(name) for name in MODULES}) == []


def test_circles_are_found():
    """The test above would find one: of two, of three, not a diamond."""
    assert circles({"a": {"b"}, "b": {"a"}}) == [["a", "b"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


def test_size_of_classes():
    """No class has more than MAX_METHODS methods, properties and what Python calls itself counted too."""
    large = set()
    for name in MODULES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef):
                methods = [
                    each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                if len(methods) > MAX_METHODS:
                    large.add(f"{name}.{node.name}")
    assert large == set()


def test_size_of_modules():
    """No module has more than MAX_LINES lines."""
    long = {
        name: count
        for name, path in MODULES.items()
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert long == {}


def only_declares(module: ast.AST) -> bool:
    """Tell whether a module has no function that does something: there is nothing in it that could be wrong."""
    functions = [one for one in ast.walk(module) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    return all(
        isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        for function in functions
        for each in function.body
    )


def mirror(name: str) -> str:
    """Return where the tests of a module are, below tests/."""
    *rooms, last = name.split(".")
    return "/".join((*rooms, f"test_{last}.py"))


def test_tests_mirror_the_source():
    """A module's tests are where its name says, and a file of tests has a module; what needs several is in tests/together."""
    tests = ROOT / "tests"
    there = {str(path.relative_to(tests)) for room in PACKAGES for path in (tests / room).rglob("test_*.py")}
    needed = {
        mirror(name)
        for name, path in MODULES.items()
        if path.name != "__init__.py" and not only_declares(tree(name))
    }
    assert sorted(needed - there) == []
    assert sorted(there - {mirror(name) for name in MODULES}) == []


@pytest.mark.parametrize("title", ["A walk: a connection", "A walk: a change, with workers"])
def test_walks(title):
    """Each step of a walk through the source opens one file, which is there, and no file is opened twice."""
    text = (ROOT / "docs/architecture.md").read_text().partition(f"\n## {title}\n")[2]
    steps = re.findall(
        r"^(\d+)\. `([\w/]+\.py)`: ", re.split(r"^## ", text, flags=re.MULTILINE)[0], flags=re.MULTILINE
    )
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 10
    assert len({path for _, path in steps}) == len(steps)
    assert [path for _, path in steps if not (ROOT / path).is_file()] == []
