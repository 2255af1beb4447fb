"""The model of many nodes measures our code, and finds the limits in the order in which they are met."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.desired import load_desired
from schemas.reading.document import MAX_BYTES
from tools.model_cluster import consequences, largest, reached, shown, table
from tools.model_loads import LOADS, Load
from tools.model_measures import Measured, Size, lb_yaml, measure

PAGE = Path(__file__).resolve().parents[2] / "docs/topics/many-nodes.md"
SIZE = Size(nodes=10, services=100, backends=2, queries=100)
MEASURED = Measured(
    sample=100,
    listed_bytes=100.0,
    discovered_bytes=80.0,
    snapshot_bytes=1000.0,
    read_s=0.0001,
    compile_s=0.0001,
    take_s=0.0001,
    daemon_kib=10.0,
    table_s=0.05,
    table_bytes=131071,
    parse_s=0.0001,
    dial_s=0.0001,
)


def named(name):
    """Return a load."""
    return next(each for each in LOADS if each.name == name)


@pytest.mark.parametrize("discovered", [False, True])
def test_the_document_is_one_that_is_taken(discovered):
    """What is measured is a valid lb.yaml with so many services."""
    desired = load_desired(lb_yaml(50, 3, discovered=discovered).encode())
    assert len(desired.services) == 50
    assert {service.discover is not None for service in desired.services.values()} == {discovered}


def test_measures_our_code():
    """Every figure is one: a snapshot has many times the bytes of its lb.yaml, and more with more backends."""
    measured = measure(SIZE)
    assert measured.sample == 100
    assert measured.snapshot_bytes > 500 > measured.listed_bytes > 50
    assert all(
        value > 0 for value in (measured.read_s, measured.compile_s, measured.take_s, measured.table_s)
    )
    assert measure(replace(SIZE, queries=0, backends=4)).snapshot_bytes > measured.snapshot_bytes


def test_measures_what_fits():
    """More services than an lb.yaml may have bytes for are measured on as many as fit."""
    sample = measure(replace(SIZE, services=20_000, backends=1, queries=0)).sample
    assert 5_000 < sample < 20_000
    assert len(lb_yaml(sample, 1, discovered=False)) <= MAX_BYTES


def test_finds_where_a_limit_is_reached():
    """The factor is where the amount is the limit, whatever the amount depends on."""
    linear = Load("", "", lambda size, _: size.services, "", limit=250.0)
    squared = Load("", "", lambda size, _: size.nodes * size.services, "", limit=4000.0)
    assert largest(SIZE, linear, MEASURED) == pytest.approx(2.5)
    assert largest(SIZE, squared, MEASURED) == pytest.approx(2.0)
    assert largest(SIZE, replace(linear, limit=None), MEASURED) is None
    assert largest(SIZE, replace(linear, limit=1e9), MEASURED) is None
    assert reached(2.0, SIZE, squared, MEASURED) == "20 nodes with 200 services"
    assert reached(2.5, SIZE, linear, MEASURED) == "250 services"


def test_the_key_holds_512_kib():
    """So many services of 80 bytes fit into a key, and fewer into a canary."""
    key = largest(SIZE, named("lb.yaml in its key, backends from Consul"), MEASURED)
    canary = largest(SIZE, named("lb.yaml of a canary, backends from Consul"), MEASURED)
    assert key == pytest.approx(512 * 1024 / 80 / 100)
    assert canary == pytest.approx(key * 300 / 512)


def test_what_breaks_first_stands_first():
    """The table and what follows from it name the limits in the order in which they are met, and only those."""
    size = Size(nodes=100, services=10_000, backends=3, queries=10_000)
    rows = table(size, MEASURED).splitlines()
    assert "10,004" in rows[2], "connections to the agent, of which 200 are allowed"
    assert "196 services" in rows[2]
    said = consequences(size, MEASURED).splitlines()
    assert said[0].startswith("1. 196 services: connections to a node's agent.")
    assert consequences(Size(3, 10, 2, 10), MEASURED) == ""


def test_amounts_are_for_people():
    """Bytes have their unit, and a number has as many digits as say something."""
    assert shown(512 * 1024, "bytes") == "512 KiB"
    assert shown(1.5 * 1024**3, "bytes/s") == "1.5 GiB/s"
    assert shown(1_000_200, "") == "1,000,200"
    assert shown(0.234, "cores") == "0.23 cores"


def test_prints_the_model():
    """The script runs as its help says, and refuses a size that is none."""
    command = [
        sys.executable,
        "-m",
        "tools.model_cluster",
        "--nodes",
        "3",
        "--services",
        "20",
        "--queries",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("3 nodes, 20 services with 3 backends each,\n2 questions to Consul")
    assert "No limit is reached." in done.stdout
    wrong = subprocess.run(
        [*command, "--nodes", "0"], capture_output=True, text=True, check=False, timeout=60
    )
    assert wrong.returncode == 2
    assert "at least 1" in wrong.stderr


def amount_in(text):
    """Return the number that an amount for people stands for, without its unit."""
    number, _, unit = text.strip().partition(" ")
    scale = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}.get(unit.removesuffix("/s"), 1)
    return float(number.replace(",", "")) * scale


def test_the_page_has_what_the_model_says():
    """Every line of the model stands in the page; what depends on no machine is about what it is now."""
    size = Size(nodes=100, services=10_000, backends=3, queries=10_000)
    measured = measure(size)
    page = PAGE.read_text()
    assert "100 nodes with 10,000 services" in page
    for load in LOADS:
        row = re.search(
            rf"^\| {re.escape(load.name)}: .* \| ([^|]+) \| [^|]* \| [^|]* \|$", page, re.MULTILINE
        )
        assert row, load.name
        if not load.timed:
            assert amount_in(row[1]) == pytest.approx(load.amount(size, measured), rel=0.2), load.name
