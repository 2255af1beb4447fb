"""What of aiohttp is loaded, each time in a process that has nothing loaded yet."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(code: str) -> list[str]:
    """Run code and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


LOAD = "import sys; from dataplane.api import aiohttp_server; aiohttp_server.load()"


def test_the_client_is_not_loaded() -> None:
    """Nor the authorities that it would read; the server says its version as ever."""
    code = "from aiohttp import web, http; print('aiohttp.client' in sys.modules, web.Application.__name__, http.SERVER_SOFTWARE)"
    assert said(f"{LOAD}; {code}") == [
        "False",
        "Application",
        *said("from aiohttp import http; print(http.SERVER_SOFTWARE)"),
    ]


@pytest.mark.parametrize("use", ["aiohttp.ClientSession", "aiohttp.test_utils.TestServer"])
def test_who_looks_for_it_gets_it(use: str) -> None:
    """It is then as if it had been imported, with the modules that are loaded."""
    module = use.rpartition(".")[0]
    code = f"from aiohttp import web; import {module}; print({use}.__name__, aiohttp.web is web, hasattr(aiohttp, 'nothing'))"
    assert said(f"{LOAD}; {code}") == [use.rpartition(".")[2], "True", "False"]


def test_it_may_be_there() -> None:
    """Then nothing changes."""
    code = f"import aiohttp; before = vars(aiohttp).copy(); {LOAD}; print(before.items() <= vars(aiohttp).items())"
    assert said(code) == ["True"]


def test_a_version_that_cannot_do_without_is_loaded_whole() -> None:
    """A name of the package that its server imports from there is found."""
    needy = """
import sys

class Needy:
    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp.web_app":
            from aiohttp import ClientSession

sys.meta_path.insert(0, Needy())
"""
    code = "print('aiohttp.client' in sys.modules, 'aiohttp.web' in sys.modules)"
    assert said(f"{needy}\n{LOAD}; {code}") == ["True", "True"]
