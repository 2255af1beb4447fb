"""`make bench`: measure us beside other proxies, and write down what came out.

The results go to bench-results/ as JSON; a full run also writes docs/performance.md and its charts.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from tools.bench import plan, report
from tools.bench.build import ROOT
from tools.bench.figures import shown
from tools.bench.machine import describe
from tools.bench.study import Pace, Study, run_study

__all__ = ["main", "run"]

RESULTS: Final = ROOT / "bench-results"
DOCUMENT: Final = ROOT / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; exit with 1 if nothing could be measured."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # children are ended on the way out
    if options.report is not None:
        report.write(json.loads(options.report.read_text()), options.document or DOCUMENT)
        return
    pace = plan.QUICK if options.quick else plan.FULL
    pace = replace(pace, rounds=options.rounds or pace.rounds, seconds=options.seconds or pace.seconds)
    studies = plan.quick() if options.quick else plan.full()
    if options.only:
        studies = [study for study in studies if study.name in options.only]
    results = run(studies, pace, quick=options.quick)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{results['machine']['when'].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {path}")
    whole = not options.quick and not options.only
    document = options.document or (DOCUMENT if whole else RESULTS / "performance.md")
    report.write(results, document)
    print(f"report: {document}")
    if not any(study["rows"] for study in results["studies"]):
        sys.exit(1)


def run(studies: Sequence[Study], pace: Pace, *, quick: bool) -> dict[str, Any]:
    """Make the studies one after the other and return the results, JSON-able."""
    start = time.monotonic()
    machine = describe()
    done = []
    for study in studies:
        print(f"{time.monotonic() - start:4.0f} s  {study.title}", flush=True)
        result = run_study(study, pace, lambda line: print(line, flush=True))
        done.append(result)
        _summarise(result)
    return {
        "machine": machine,
        "pace": asdict(pace),
        "quick": quick,
        "took_s": time.monotonic() - start,
        "studies": done,
    }


def _summarise(result: dict[str, Any]) -> None:
    for name, row in result["rows"].items():
        figures = [
            f"{metric['title']} {shown(row[metric['key']]['median'])} {metric['unit']}"
            for metric in result["metrics"]
            if metric["key"] in row
        ]
        print(f"        {name:16} {', '.join(figures)}", flush=True)
    for who, reason in result["missing"].items():
        print(f"        {who}: {reason}", flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = sorted({study.name for study in (*plan.full(), *plan.quick())})
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer studies, shorter turns: under two minutes"
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="STUDY", help=f"of: {', '.join(names)}")
    parser.add_argument(
        "--rounds", type=int, help="counted turns of each contender (default 5; 3 with --quick)"
    )
    parser.add_argument("--seconds", type=float, help="of a turn (default 1; 0.5 with --quick)")
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="measure nothing, write the document of this run"
    )
    parser.add_argument("--document", type=Path, metavar="FILE", help="where the document goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
