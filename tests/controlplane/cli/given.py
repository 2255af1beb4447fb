"""Commands with nobody behind them: what they ask is written down, what they are told is what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.testing import CliRunner, Result

from controlplane.dataplanes.endpoint import Endpoint
from controlplane.dataplanes.requests import Call
from controlplane.operations.drain_file import DrainFile


class _Client:
    """A data plane, or the daemon, as seen by a command.

    Args:
        name: Its name.
        answer: What it answers to whatever it is asked; an error is raised.
        asked: Where the question is written down: method, path and query, seconds.
    """

    def __init__(
        self, name: str, answer: Mapping[str, Any] | Exception, asked: list[tuple[str, str, float]]
    ) -> None:
        self.endpoint = Endpoint(name, f"/nowhere/{name}.sock")
        self._answer = answer
        self._asked = asked

    def ask(self, call: Call, *, timeout_s: float) -> Mapping[str, Any]:
        """Answer."""
        target = urlsplit(call.target)
        path = f"{target.path}?{target.query}" if target.query else target.path
        self._asked.append((call.method, path, timeout_s))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Given:
    """Stands for the settings of a command line.

    Args:
        answers: Of each data plane, by its name.
        gateway: What changes things.
        record: Where it is written down that the node is taken out; None: it never was.
    """

    def __init__(
        self,
        *,
        gateway: object = None,
        record: DrainFile | None = None,
        **answers: Mapping[str, Any] | Exception,
    ) -> None:
        self.asked: list[tuple[str, str, float]] = []
        self._clients = [_Client(name, answer, self.asked) for name, answer in answers.items()]
        self._gateway = gateway
        self._record = record or DrainFile(Path("/nowhere"))

    def clients(self) -> list[_Client]:
        """Return the data planes."""
        return self._clients

    def node_record(self) -> DrainFile:
        """Return where it is written down that the node is taken out."""
        return self._record

    def draining(self) -> tuple[()]:
        """Return the processes that finish what they have: none."""
        return ()

    def gateway(self) -> object:
        """Return what changes things."""
        return self._gateway

    def daemon(self) -> object:
        """Return the daemon: there is one if there is a gateway."""
        return self._gateway


def run(command: click.Command, given: object, *arguments: str) -> Result:
    """Run a command; an error of ours comes out as it is raised."""
    result = CliRunner().invoke(command, arguments, obj=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
