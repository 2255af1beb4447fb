"""What the load programs print, as figures."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Final

_UNITS_US: Final = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
_LATENCY: Final = re.compile(r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in {text[-300:]!r}")
    return float(found[1])


def wrk(text: str) -> dict[str, float]:
    """Read `wrk --latency`: work (requests), rate (per second), errors and latencies (microseconds)."""
    figures = {
        "work": _number(r"(\d+) requests in", text),
        "rate": _number(r"Requests/sec:\s+([\d.]+)", text),
        "errors": float(sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))),
    }
    for share, value, unit in _LATENCY.findall(text):
        figures[f"p{share}_us"] = float(value) * _UNITS_US[unit]
    return figures


def load(text: str) -> dict[str, float]:
    """Read the line of `load.c` or `tls_load.c`; `work` counts the warm-up, too, because it has used CPU."""
    figures = {key: float(value) for key, value in json.loads(text).items()}
    return {**figures, "work": figures["total"]}


def tls_stream(text: str) -> dict[str, float]:
    """Read the line of `tls_load.c` after a bulk transfer: gigabytes that arrived, and per second."""
    figures = load(text)
    return {"work": figures["bytes"] / 1e9, "rate": figures["bytes_rate"] / 1e9, "errors": figures["errors"]}


def iperf(text: str) -> dict[str, float]:
    """Read `iperf3 --json`: gigabytes received, and per second."""
    report = json.loads(text)
    if "error" in report:
        raise ValueError(report["error"])
    received = report["end"]["sum_received"]
    return {
        "work": received["bytes"] / 1e9,
        "rate": received["bits_per_second"] / 8e9,
        "errors": 0.0,
    }


def redis_benchmark(text: str, requests: int) -> dict[str, float]:
    """Read `redis-benchmark --csv` of one or several tests of `requests` each: rates and latencies are means."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise ValueError(f"no table in {text[-300:]!r}")
    return {
        "work": float(requests * len(rows)),
        "rate": len(rows) / sum(1 / float(row["rps"]) for row in rows),
        "p50_us": sum(float(row["p50_latency_ms"]) for row in rows) / len(rows) * 1e3,
        "p99_us": sum(float(row["p99_latency_ms"]) for row in rows) / len(rows) * 1e3,
        "errors": 0.0,
    }


def pgbench(text: str) -> dict[str, float]:
    """Read `pgbench`: transactions, per second, failed ones, and the mean latency in microseconds."""
    return {
        "work": _number(r"actually processed: (\d+)", text),
        "rate": _number(r"tps = ([\d.]+)", text),
        "mean_us": _number(r"latency average = ([\d.]+) ms", text) * 1e3,
        "errors": _number(r"failed transactions: (\d+)", text),
    }
