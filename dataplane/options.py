"""Options of the command line, checked and with their defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dataplane.api.credentials import WRONG, CredentialFiles, Credentials
from dataplane.api.server import api_path, draining_path
from dataplane.errors import UsageError
from dataplane.telemetry.connection_log import RecordingOptions, Wanted
from schemas.addresses import too_long
from schemas.quantities import parse_duration
from schemas.system.ownership import explain_error
from schemas.system.unix_socket import InUse, OwnSocket

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
MAX_CORES: Final = 1024
TRACE_SAMPLE: Final = 0.01
"""The share of connections that get a span if none is named."""
MAX_PORT: Final = 65535
MAX_PID: Final = 2**22
"""proc(5), pid_max."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    name: str
    workers: int
    """1: no supervisor, unless something is taken over."""
    takeover: bool
    cpu_affinity: bool
    runtime_dir: Path
    state_dir: Path
    reuse_port: bool
    config: Path | None
    log_format: str
    recording: RecordingOptions
    api: str | None
    metrics: str | None
    credentials: CredentialFiles
    """Of `api`."""


def options_from(given: Mapping[str, Any], directory: Callable[[str, str, str, str], Path]) -> Options:
    """Check what was given and fill in the rest; UsageError if it does not fit together, or names what cannot be used."""
    workers = _workers(given["workers"])
    if given["reuseport"] and (workers > 1 or given["takeover"]):
        raise UsageError(
            "--reuseport is for processes that you start yourself: not with --workers or --takeover"
        )
    runtime_dir = given["runtime_dir"] or directory("LB_RUNTIME_DIR", "/run/lb", "XDG_RUNTIME_DIR", "")
    state_dir = given["state_dir"] or directory(
        "LB_STATE_DIR", "/var/lib/lb", "XDG_STATE_HOME", ".local/state"
    )
    name = given["name"]
    if name is None:
        name = _free_core(runtime_dir) if given["reuseport"] else "main"
    if not _NAME.match(name):
        raise UsageError(f"--name: {name!r} is no name; letters, digits, '.', '_' and '-' are")
    longest = draining_path(runtime_dir, name, MAX_PID)
    if problem := too_long(longest):
        raise UsageError(f"--runtime-dir {runtime_dir}, --name {name}: {problem}")
    credentials = _credentials(given)
    return Options(
        name=name,
        workers=workers,
        takeover=given["takeover"],
        cpu_affinity=given["cpu_affinity"],
        runtime_dir=runtime_dir,
        state_dir=state_dir,
        reuse_port=given["reuseport"],
        config=given["config"],
        log_format=given["log_format"],
        recording=_recording(given),
        api=given["api"],
        metrics=_metrics(given["metrics"]),
        credentials=credentials,
    )


def _workers(given: str) -> int:
    """Return how many workers `--workers` asks for: one for each core that this process may use with `auto`."""
    if given == "auto":
        return len(os.sched_getaffinity(0))
    if given.isdecimal() and 1 <= int(given) <= MAX_CORES:
        return int(given)
    raise UsageError(f"--workers: {given!r} is neither auto nor a number from 1 to {MAX_CORES}")


def _free_core(runtime_dir: Path) -> str:
    """Return the first name that no running process has, so that a restarted one finds its own state again."""
    for core in range(MAX_CORES):
        own = OwnSocket(api_path(runtime_dir, f"core-{core}"))
        try:
            own.acquire()
        except InUse:
            continue
        except OSError as error:
            raise UsageError(f"--runtime-dir {runtime_dir}: {explain_error(own.path, error)}") from error
        own.close()
        return f"core-{core}"
    raise UsageError(f"--name: {MAX_CORES} processes run in {runtime_dir} already")


def _metrics(address: str | None) -> str | None:
    """Return where metrics are served, checked."""
    if address is not None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise UsageError(f"--metrics: {address!r} is not HOST:PORT")
    return address


def _credentials(given: Mapping[str, Any]) -> CredentialFiles:
    """Return where the credentials of the TCP API are, and see that they can be used; it is not served to just anybody."""
    files = CredentialFiles(given["token_file"], given["tls_cert"], given["tls_key"], given["tls_client_ca"])
    if given["api"] is None:
        return files
    if (files.cert is None) is not (files.key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    if files.client_ca is not None and files.cert is None:
        raise UsageError("--tls-client-ca needs --tls-cert and --tls-key")
    if files.token is None and files.client_ca is None:
        raise UsageError(
            "--api: the API over TCP needs --token-file, or client certificates with --tls-client-ca"
        )
    try:
        Credentials(files)
    except WRONG as error:
        raise UsageError(str(error)) from error
    return files


def _recording(given: Mapping[str, Any]) -> RecordingOptions:
    """Return what is to be kept of connections that end."""
    filters = ("access_log_errors", "access_log_slower_than", "access_log_sample", "access_log_sample_errors")
    for name in filters:
        if given[name] and given["access_log"] == "off":
            raise UsageError(f"--{name.replace('_', '-')} needs --access-log")
    if given["access_log_sample_errors"] and given["access_log_sample"] is None:
        raise UsageError("--access-log-sample-errors needs --access-log-sample")
    slower_than_s = 0.0
    if (slower_than := given["access_log_slower_than"]) is not None:
        try:
            slower_than_s = parse_duration(slower_than)
        except ValueError as error:
            raise UsageError(f"--access-log-slower-than: {error}") from error
        if not slower_than_s:
            raise UsageError("--access-log-slower-than: must be more than 0")
    wanted = Wanted(
        errors=given["access_log_errors"],
        slower_than_s=slower_than_s,
        sample=_share("--access-log-sample", given["access_log_sample"]),
        sample_errors=given["access_log_sample_errors"],
    )
    return RecordingOptions(given["access_log"], wanted, *_tracing(given))


def _tracing(given: Mapping[str, Any]) -> tuple[float, str | None]:
    """Return the share of connections that get a span, 0 for none, and where spans go."""
    sample, endpoint = _share("--otel-sample", given["otel_sample"]), given["otel_endpoint"]
    if endpoint is not None:
        endpoint = _traces_url(endpoint)
        sample = sample or TRACE_SAMPLE
    if not sample:
        return 0.0, None
    try:
        there = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:  # not even what it would be in
        there = None
    if not there:
        raise UsageError("--otel-sample and --otel-endpoint need more packages: pip install 'livelb[otel]'")
    return sample, endpoint


def _traces_url(given: str) -> str:
    """Return a collector's URL; the path that collectors have for spans if it names none."""
    try:
        url = urlsplit(given)
        if url.scheme in {"http", "https"} and url.hostname and url.port != 0:
            return url._replace(path="/v1/traces").geturl() if url.path in {"", "/"} else given
    except ValueError:  # a port that is no number, or half a pair of brackets
        pass
    raise UsageError(f"--otel-endpoint: {given!r} is no URL such as http://127.0.0.1:4318/v1/traces")


def _share(option: str, given: str | None) -> float | None:
    if given is None:
        return None
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:  # nor is nan
        raise UsageError(f"{option}: {given!r} is no share: a number above 0 and up to 1")
    return share
