"""A model of many nodes and many services: what it comes to in Consul and on each node, what breaks first, and what then.

    python -m tools.model_cluster                                  100 nodes, 10,000 services, each asking Consul
    python -m tools.model_cluster --nodes 20 --services 500 --queries 40

What a size or a time depends on our code for is measured with that code, on a document of this many services or of as many as
fit; the rest is arithmetic, which stands beside each line. Nodes and services are then scaled together, by the same factor,
until a limit is reached: the lowest factor is what breaks first. Times are of this machine.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Final

from controlplane.discovery.consul.watch import Pace
from tools.model_loads import CHECKED_EVERY_S, KIB, LOADS, MIB, OWN_CONNECTIONS, Load
from tools.model_measures import Measured, Size, measure

FACTOR: Final = 1000.0
"""What is not reached when nodes and services are so many times as many does not break."""


def largest(size: Size, load: Load, measured: Measured) -> float | None:
    """Return the factor for nodes and services at which a limit is reached; None: not within `FACTOR`."""
    limit = load.limit
    if limit is None or load.amount(_scaled(size, FACTOR), measured) <= limit:
        return None
    low, high = 0.0, FACTOR
    for _ in range(60):
        middle = (low + high) / 2
        if load.amount(_scaled(size, middle), measured) > limit:
            high = middle
        else:
            low = middle
    return low


def _scaled(size: Size, factor: float) -> Size:
    return replace(
        size, nodes=size.nodes * factor, services=size.services * factor, queries=size.queries * factor
    )


def table(size: Size, measured: Measured) -> str:
    """Return the model as a table in Markdown, what breaks first on top."""
    found = [(largest(size, load, measured), load) for load in LOADS]
    breaking = sorted(
        ((at, load) for at, load in found if at is not None and at < 1), key=lambda each: each[0]
    )
    lines = ["| | at this size | limit | reached at |", "|---|---:|---|---|"]
    for at, load in [*breaking, *((at, load) for at, load in found if at is None or at >= 1)]:
        value = shown(load.amount(size, measured), load.unit)
        limit = "" if load.limit is None else f"{shown(load.limit, load.unit)} ({load.whose})"
        lines.append(
            f"| {load.name}: {formula(load, size, measured)} | {value} | {limit} | {reached(at, size, load, measured)} |"
        )
    return "\n".join(lines)


def consequences(size: Size, measured: Measured) -> str:
    """Return what happens beyond each limit that this size is beyond, in the order in which they are met."""
    found = [(largest(size, load, measured), load) for load in LOADS]
    met = sorted(((at, load) for at, load in found if at is not None and at < 1), key=lambda each: each[0])
    return "\n".join(
        f"{number}. {reached(at, size, load, measured)}: {load.name}. {load.then}"
        for number, (at, load) in enumerate(met, 1)
    )


def formula(load: Load, size: Size, measured: Measured) -> str:
    """Return a load's arithmetic with the figures that were measured."""
    return load.formula.format(
        discovered_bytes=measured.discovered_bytes,
        listed_bytes=measured.listed_bytes,
        snapshot_bytes=measured.snapshot_bytes,
        take_us=measured.take_s * 1e6,
        compile_us=(measured.read_s + measured.compile_s) * 1e6,
        daemon_kib=measured.daemon_kib,
        backends=size.backends,
        own=OWN_CONNECTIONS,
        parse_us=measured.parse_s * 1e6,
        wait=Pace().wait_s,
        interval=CHECKED_EVERY_S,
        dial_us=measured.dial_s * 1e6,
        table_kib=measured.table_bytes / KIB,
        table_ms=measured.table_s * 1e3,
    )


def reached(factor: float | None, size: Size, load: Load, measured: Measured) -> str:
    """Say how many nodes and services a limit takes."""
    if factor is None:
        return "" if load.limit is None else "never"
    now, said = load.amount(size, measured), []
    for name, more in (("nodes", replace(size, nodes=size.nodes * 2)), ("services", _more_services(size))):
        if load.amount(more, measured) != now:
            said.append(f"{factor * getattr(size, name):,.0f} {name}")
    return " with ".join(said)


def _more_services(size: Size) -> Size:
    return replace(size, services=size.services * 2, queries=size.queries * 2)


def shown(amount: float, unit: str) -> str:
    """Write an amount for people."""
    for name, bytes_ in (("GiB", KIB * MIB), ("MiB", MIB), ("KiB", KIB)):
        if unit.startswith("bytes") and amount >= bytes_:
            return (
                f"{amount / bytes_:,.{0 if amount >= 10 * bytes_ else 1}f} {name}{unit.removeprefix('bytes')}"
            )
    return f"{amount:,.{0 if amount >= 10 else 1 if amount >= 1 else 2}f} {unit}".strip()  # noqa: PLR2004 - two digits


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", metavar="N", type=int, default=100)
    parser.add_argument("--services", metavar="N", type=int, default=10_000)
    parser.add_argument("--backends", metavar="N", type=int, default=3, help="of each service")
    parser.add_argument(
        "--queries",
        metavar="N",
        type=int,
        help="distinct questions to Consul (as many as services); 0: backends are listed",
    )
    given = parser.parse_args()
    queries = given.services if given.queries is None else given.queries
    if min(given.nodes, given.services, given.backends) < 1 or queries < 0:
        parser.error("nodes, services and backends are at least 1, questions at least 0")
    size = Size(given.nodes, given.services, given.backends, queries)
    measured = measure(size)
    print(f"{given.nodes:,} nodes, {given.services:,} services with {given.backends} backends each,")
    print(f"{queries:,} questions to Consul; measured on {measured.sample:,} services.\n")
    print(table(size, measured), end="\n\n")
    print(consequences(size, measured) or "No limit is reached.")


if __name__ == "__main__":
    main()
