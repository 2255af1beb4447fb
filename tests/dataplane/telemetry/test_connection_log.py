"""What is kept of each connection: nothing, lines, spans or both, as the command line says."""

from __future__ import annotations

import json

import pytest

from dataplane.core.reasons import CloseReason
from dataplane.telemetry.access_log import Wanted
from dataplane.telemetry.connection_log import Recording, RecordingOptions
from tests.dataplane.telemetry.ended import ended
from tests.support.collector import Collector


class Told(list):
    """Takes events."""

    def __call__(self, kind, **fields):
        """Note one."""
        self.append((kind, fields))


def recording(told=None, **options):
    """Keep this much."""
    return Recording(RecordingOptions(**options), "test", print if told is None else told)


def lines(path):
    """Return what the access log's lines say."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_nothing_is_kept_unless_it_is_asked_for(no_leaks):
    """A service has nothing to call then, and there is no file, thread or exporter."""
    one = recording(told := Told())
    assert (one.record, one.sink, one.dropped_lines, one.spans()) == (None, None, 0, (0, 0))
    one.reopen()
    await one.close()
    assert told == []


async def test_lines_alone(tmp_path):
    """They are written when it is closed, and no later."""
    path = tmp_path / "access.log"
    one = recording(access_log=str(path))
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    one.record(ended(), CloseReason.NO_BACKEND, None)
    await one.close()
    assert [line["reason"] for line in lines(path)] == ["client_closed", "no_backend"]
    assert one.spans() == (0, 0)


async def test_what_is_wanted_travels_along(tmp_path):
    """Of all connections, only those that did not end well."""
    path = tmp_path / "access.log"
    one = recording(access_log=str(path), wanted=Wanted(errors=True))
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    one.record(ended(), CloseReason.NO_BACKEND, None)
    await one.close()
    assert [line["reason"] for line in lines(path)] == ["no_backend"]


async def test_spans_alone():
    """All of them arrive before it is closed."""
    with Collector() as collector:
        one = recording(trace_sample=1.0, trace_endpoint=f"{collector.base}/v1/traces")
        assert one.sink is None
        one.record(ended(), CloseReason.CLIENT_CLOSED, None)
        await one.close()
        assert [span.attributes["lb.close_reason"] for span in collector.spans] == ["client_closed"]
        assert one.spans() == (1, 0)


async def test_both_get_each_connection(tmp_path):
    """One call of the service's makes a line and a span."""
    path = tmp_path / "access.log"
    with Collector() as collector:
        endpoint = f"{collector.base}/v1/traces"
        one = recording(access_log=str(path), trace_sample=1.0, trace_endpoint=endpoint)
        for reason in (CloseReason.CLIENT_CLOSED, CloseReason.NO_BACKEND):
            one.record(ended(), reason, None)
        await one.close()
        expected = ["client_closed", "no_backend"]
        assert [line["reason"] for line in lines(path)] == expected
        assert [span.attributes["lb.close_reason"] for span in collector.spans] == expected


async def test_spans_that_nobody_takes_are_counted():
    """And told."""
    with Collector(status=400) as collector:
        told = Told()
        one = recording(told, trace_sample=1.0, trace_endpoint=f"{collector.base}/v1/traces")
        one.record(ended(), CloseReason.CLIENT_CLOSED, None)
        await one.close()
        assert one.spans() == (0, 1)


async def test_a_file_that_was_renamed_is_opened_anew(tmp_path):
    """It is told; what was written before stays with the old name."""
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    one = recording(told := Told(), access_log=str(path))
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    path.rename(old)
    one.reopen()
    one.record(ended(), CloseReason.NO_BACKEND, None)
    await one.close()
    assert told == [("access_log_reopened", {"path": str(path)})]
    assert [[line["reason"] for line in lines(each)] for each in (old, path)] == [
        ["client_closed"],
        ["no_backend"],
    ]


async def test_a_file_that_cannot_be_opened_anew(tmp_path):
    """It is told why, and the old one is written on."""
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    one = recording(told := Told(), access_log=str(path))
    moved = path.parent.rename(tmp_path / "old")
    one.reopen()
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    await one.close()
    assert [kind for kind, _ in told] == ["access_log_not_reopened"]
    assert "No such file or directory" in told[0][1]["cause"]
    assert len(lines(moved / "access.log")) == 1


def test_lines_that_nobody_will_see_are_counted(tmp_path):
    """As the sink has them."""
    one = recording(access_log=str(tmp_path / "access.log"))
    one.sink._refused = 3
    assert one.dropped_lines == 3
    one.sink.close()


def test_an_access_log_that_cannot_be_opened(tmp_path):
    """It is known at once, not at the first connection."""
    with pytest.raises(OSError, match="No such file"):
        recording(access_log=str(tmp_path / "missing" / "access.log"))


async def test_an_environment_that_says_nonsense(monkeypatch):
    """OpenTelemetry's variables are read at once, too."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000000")
    with pytest.raises(ValueError, match="max_export_batch_size"):
        recording(trace_sample=1.0)
