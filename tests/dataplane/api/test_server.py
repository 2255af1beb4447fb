"""Where the API is served, with a data plane that only says who it is."""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
import pytest

from dataplane.api.credentials import CredentialFiles
from dataplane.api.plane import DataPlane
from dataplane.api.server import Endpoints
from schemas.system.unix_socket import OwnSocket

NO_FILES = CredentialFiles(None, None, None, None)


class Report:
    """What there is to tell."""

    reason = None

    def info(self):
        """Say who answers."""
        return {"name": "fake"}

    async def metrics(self):
        """Say nothing."""
        return b"# none\n"

    def not_ready(self):
        """Say what the test says."""
        return self.reason


@pytest.fixture
def plane():
    """A data plane of which only the report is asked."""
    nothing = SimpleNamespace()
    return DataPlane(nothing, Report(), nothing, SimpleNamespace(emit=lambda *_, **__: None))


async def get(where, path):
    """GET from a Unix socket, or from host and port; return the status and the text."""
    unix = not isinstance(where, str)
    connector = aiohttp.UnixConnector(path=str(where)) if unix else aiohttp.TCPConnector()
    base = "http://localhost" if unix else f"http://{where}"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(base + path) as answer:
        return answer.status, await answer.text()


async def served(plane, tmp_path, metrics=None):
    """Return what serves it, and its own socket."""
    own = OwnSocket(tmp_path / "own.sock")
    own.acquire()
    endpoints = Endpoints(plane, own, None, metrics, NO_FILES, beside=False)
    await endpoints.listen(relays=metrics is None)
    return endpoints, own


async def test_the_name_is_given_away(plane, tmp_path):
    """Who moves answers at the other socket, and the name, its lock and its socket are free for the next one."""
    endpoints, own = await served(plane, tmp_path)
    away, other = OwnSocket(tmp_path / "away.sock"), OwnSocket(tmp_path / "own.sock")
    await endpoints.serve()
    try:
        assert await get(own.path, "/v1/info") == (200, '{"name": "fake"}')
        await endpoints.move(away)
        assert await get(away.path, "/v1/info") == (200, '{"name": "fake"}')
        assert not own.path.exists()
        other.acquire()
    finally:
        await endpoints.cleanup()
        other.remove()
    assert not list(tmp_path.iterdir())


async def test_a_name_is_given_away_whatever_happens(plane, tmp_path):
    """That nothing can be served where it would move to is told, and keeps nothing from the next process."""
    endpoints, _ = await served(plane, tmp_path)
    told = []
    endpoints.emit = lambda kind, **_: told.append(kind)
    (tmp_path / "file").touch()
    other = OwnSocket(tmp_path / "own.sock")
    await endpoints.serve()
    await endpoints.move(OwnSocket(tmp_path / "file" / "away.sock"))
    assert told == ["api_not_served"]
    other.acquire()
    other.close()
    await endpoints.cleanup()


async def test_metrics_alone(plane, tmp_path):
    """Whoever asks there learns numbers and whether all is well, and reaches nothing else."""
    endpoints, own = await served(plane, tmp_path, "127.0.0.1:0")
    await endpoints.serve()
    host, port = endpoints._bound["--metrics"].getsockname()
    where = f"{host}:{port}"
    try:
        assert await get(where, "/metrics") == (200, "# none\n")
        assert (await get(where, "/readyz"))[0] == 200
        plane.report.reason = "the process is ending"
        status, text = await get(where, "/readyz")
        assert (status, "the process is ending" in text) == (503, True)
        assert (await get(where, "/v1/info"))[0] == 404
    finally:
        await endpoints.cleanup()
        own.remove()
