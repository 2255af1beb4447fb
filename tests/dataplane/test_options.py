"""What the command line may say: what fits together, what is left out, and what cannot be, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dataplane.cli import main
from dataplane.errors import UsageError
from dataplane.options import Options, options_from
from schemas.system.unix_socket import OwnSocket


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name, whoever runs the tests: the path of a socket has at most 107 bytes."""
    with TemporaryDirectory(prefix="lb-test-") as folder:
        yield Path(folder)


def options(tmp_path: Path, *arguments: str) -> Options:
    """Return what a command line makes of these arguments; directories that are not named are below `tmp_path`."""
    given = main.make_context("lb-dataplane", list(arguments)).params

    def directory(variable: str, *_: str) -> Path:
        return tmp_path / variable

    return options_from(given, directory)


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    """One process named main, in the directories of this user, that keeps nothing of connections."""
    made = options(tmp_path)
    assert (made.name, made.workers, made.takeover, made.reuse_port) == ("main", 1, False, False)
    assert (made.runtime_dir.name, made.state_dir.name) == ("LB_RUNTIME_DIR", "LB_STATE_DIR")
    assert (made.api, made.metrics, made.config, made.log_format) == (None, None, None, "json")
    assert (made.recording.access_log, made.recording.trace_sample) == ("off", 0.0)


def test_auto_is_a_worker_for_each_core(tmp_path: Path) -> None:
    """Those that this process may use."""
    assert options(tmp_path, "--workers", "auto").workers == len(os.sched_getaffinity(0))
    assert options(tmp_path, "--workers", "7").workers == 7


def test_processes_that_share_their_ports_have_names_of_their_own(tmp_path: Path) -> None:
    """The first that nobody has who runs: a process that comes back finds its own state again."""
    folder = tmp_path / "LB_RUNTIME_DIR"
    first, second = (OwnSocket(folder / f"dataplane-core-{number}.sock") for number in (0, 1))
    assert options(tmp_path, "--reuseport").name == "core-0"
    first.acquire()
    second.acquire()
    assert options(tmp_path, "--reuseport").name == "core-2"
    first.close()
    assert options(tmp_path, "--reuseport").name == "core-0"
    second.close()
    assert options(tmp_path, "--reuseport", "--name", "edge").name == "edge"


@pytest.mark.parametrize(
    ("given", "slower_than_s", "sample"),
    [
        ((), 0.0, None),
        (("--access-log-slower-than", "500ms"), 0.5, None),
        (("--access-log-sample", "0.01"), 0.0, 0.01),
        (("--access-log-sample", "1", "--access-log-sample-errors"), 0.0, 1.0),
    ],
)
def test_filters_of_the_access_log(
    tmp_path: Path, given: tuple[str, ...], slower_than_s: float, sample: float | None
) -> None:
    """In seconds and shares; without one, every line."""
    wanted = options(tmp_path, "--access-log", "-", *given).recording.wanted
    assert (wanted.slower_than_s, wanted.sample) == (slower_than_s, sample)
    assert wanted.sample_errors == ("--access-log-sample-errors" in given)


@pytest.mark.parametrize(
    ("given", "sample", "endpoint"),
    [
        (("--otel-sample", "0.5"), 0.5, None),
        (("--otel-endpoint", "http://a:4318"), 0.01, "http://a:4318/v1/traces"),
        (("--otel-endpoint", "http://a:4318/"), 0.01, "http://a:4318/v1/traces"),
        (("--otel-endpoint", "https://a/own", "--otel-sample", "1"), 1.0, "https://a/own"),
    ],
)
def test_where_spans_go(tmp_path: Path, given: tuple[str, ...], sample: float, endpoint: str | None) -> None:
    """A collector's usual path is added to an address without one; naming one is wish enough for a few spans."""
    recording = options(tmp_path, *given).recording
    assert (recording.trace_sample, recording.trace_endpoint) == (sample, endpoint)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--workers 0", "--workers: '0' is neither auto nor a number from 1 to 1024"),
        ("--workers 1025", "is neither auto"),
        ("--workers -1", "is neither auto"),
        ("--workers ²", "is neither auto"),
        ("--workers 2 --reuseport", "--reuseport is for processes that you start yourself"),
        ("--takeover --reuseport", "--reuseport is for processes that you start yourself"),
        ("--name ../x", "--name: '../x' is no name"),
        ("--name .x", "is no name"),
        (f"--name {'x' * 64}", "is no name"),
        (f"--runtime-dir /{'x' * 100}", "--name main: "),
        ("--metrics 9464", "--metrics: '9464' is not HOST:PORT"),
        ("--metrics a:b", "is not HOST:PORT"),
        ("--metrics a:65536", "is not HOST:PORT"),
        (
            "--api a:1",
            "--api: the API over TCP needs --token-file, or client certificates with --tls-client-ca",
        ),
        ("--api a:1 --token-file t --tls-cert c", "--tls-cert and --tls-key go together"),
        ("--api a:1 --token-file t --tls-key k", "--tls-cert and --tls-key go together"),
        ("--api a:1 --tls-client-ca c", "--tls-client-ca needs --tls-cert and --tls-key"),
        ("--api a:1 --token-file /none", "/none"),
        ("--access-log-errors", "--access-log-errors needs --access-log"),
        ("--access-log-slower-than 5s", "--access-log-slower-than needs --access-log"),
        ("--access-log-sample 0.5", "--access-log-sample needs --access-log"),
        ("--access-log - --access-log-sample 0", "--access-log-sample: '0' is no share"),
        ("--access-log - --access-log-sample 1.5", "a number above 0 and up to 1"),
        ("--access-log - --access-log-sample nan", "'nan' is no share"),
        ("--access-log - --access-log-sample many", "'many' is no share"),
        ("--access-log - --access-log-sample-errors", "needs --access-log-sample"),
        ("--access-log - --access-log-slower-than 500", "--access-log-slower-than: must be a duration"),
        ("--access-log - --access-log-slower-than 0", "--access-log-slower-than: must be more than 0"),
        ("--otel-sample 2", "--otel-sample: '2' is no share"),
        ("--otel-endpoint collector:4318", "--otel-endpoint: 'collector:4318' is no URL"),
        ("--otel-endpoint http://", "is no URL"),
        ("--otel-endpoint http://[::1", "is no URL"),
        ("--otel-endpoint http://a:99999", "is no URL"),
        ("--otel-endpoint ftp://a/v1/traces", "is no URL"),
    ],
)
def test_what_cannot_be(tmp_path: Path, given: str, words: str) -> None:
    """The words name the option and what it takes."""
    with pytest.raises(UsageError) as caught:
        options(tmp_path, *given.split(" "))
    assert words in str(caught.value)
