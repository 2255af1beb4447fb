"""A real `lb-dataplane` process, and a client for its API."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.prefork import command
from tests.support.process import Program, answers
from tests.support.wait import DEADLINE_S, wait_for

ANSWER_S = 10.0
"""How long one call of the API may take."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def unix_request(
    socket_path: Path,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """Make one HTTP call over a Unix socket.

    Args:
        socket_path: Where the server listens.
        method: GET, PUT, ...
        path: With its query.
        body: bytes as they are, None for nothing, anything else as JSON.
        headers: More headers, or others than the usual ones.

    Returns:
        The status, and the body: decoded if it is JSON, else as text.
    """
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = (
        {"Content-Type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
    )
    connection = _UnixConnection(socket_path, ANSWER_S)
    try:
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json and text else text
    finally:
        connection.close()


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` that carry (at least) these labels; 0 if there is none."""
        return sum(self.values(name, **labels))

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the samples of `name` that carry (at least) these labels."""
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def names(self) -> set[str]:
        """Return the names of all samples."""
        return {sample.name for sample in self.samples}


class DataPlane(Program):
    """`lb-dataplane` in directories of its own, without a configuration unless it is given one.

    Args:
        arguments: More command-line arguments, as `["--workers", "2"]`.
        environment: More environment, as `{"LISTEN": ...}`.
        name: Of the data plane.
        runtime_dir: Share another's, to be found by one `lb-control`.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        name: str = "test",
        runtime_dir: Path | None = None,
    ) -> None:
        super().__init__([])
        self.name = name
        self.runtime_dir = runtime_dir or self.directory / "run"
        self.state_dir = self.directory / "state"
        self.socket = self.runtime_dir / f"dataplane-{name}.sock"
        self._environment |= {
            "LB_RUNTIME_DIR": str(self.runtime_dir),
            "LB_STATE_DIR": str(self.state_dir),
            **(environment or {}),
        }
        self.argv = [command("lb-dataplane"), "--name", name, *arguments]
        self._generation = 0

    def ready(self) -> bool:
        """Tell whether the API answers for the process that was started last."""
        if not answers(self.socket):
            return False
        status, info = self.request("GET", "/v1/info")
        return bool(status == http.client.OK and info["pid"] == self.pid)

    def wait_draining(self) -> None:
        """Wait until it has given its name away; from then on its API is called where it drains."""
        away = self.runtime_dir / f"draining-{self.name}.{self.pid}.sock"
        wait_for(lambda: answers(away) and not answers(self.socket), "the name to be free")
        self.socket = away

    def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Call the API; see `unix_request`."""
        return unix_request(self.socket, method, path, body, headers)

    def get(self, path: str) -> Any:
        """Return the body of a GET that must succeed."""
        status, body = self.request("GET", path)
        assert status == http.client.OK, f"GET {path}: {status} {body}"
        return body

    def put_snapshot(
        self, services: Mapping[str, Any], generation: int | None = None, **more: object
    ) -> dict[str, Any]:
        """Put a snapshot, which must be taken, and return the answer.

        Args:
            services: As in a snapshot; defaults and short forms may be used.
            generation: None for one more than the last one used here.
            more: More keys of the body.
        """
        if generation is None:
            generation = self._generation + 1
        status, body = self.request(
            "PUT", "/v1/snapshot", {"version": 1, "generation": generation, "services": services, **more}
        )
        assert status == http.client.OK, f"PUT /v1/snapshot: {status} {body}"
        assert isinstance(body, dict)
        self._generation = generation
        return body

    def status(self) -> dict[str, Any]:
        """Return `GET /v1/status`."""
        status: dict[str, Any] = self.get("/v1/status")
        return status

    def backend(self, service: str, backend_id: str) -> dict[str, Any]:
        """Return one backend's part of the status."""
        backends: list[dict[str, Any]] = self.status()["services"][service]["backends"]
        return next(backend for backend in backends if backend["id"] == backend_id)

    def wait_status(
        self, holds: Callable[[dict[str, Any]], object], *, deadline_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """Return the first status for which `holds`."""
        last: list[dict[str, Any]] = []

        def ask() -> bool:
            last[:] = [self.status()]
            return bool(holds(last[0]))

        try:
            wait_for(ask, "a status", deadline_s=deadline_s)
        except AssertionError as error:
            msg = f"{error}\n{json.dumps(last, indent=1)}"
            raise AssertionError(msg) from None
        return last[0]

    def metrics(self) -> Metrics:
        """Return one scrape of `/metrics`."""
        return Metrics(self.get("/metrics"))
