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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tools.bench import plan, report
from tools.bench.build import COMPILED, ROOT, form
from tools.bench.contenders import INTERPRETED_SUFFIX
from tools.bench.figures import ratio, shown
from tools.bench.machine import describe
from tools.bench.study import Pace, Study, run_study

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
    if options.rounds:
        pace = replace(pace, rounds=options.rounds, brief_rounds=options.rounds)
    if options.seconds:
        pace = replace(pace, seconds=options.seconds, brief_seconds=options.seconds)
    studies = plan.quick() if options.quick else plan.full()
    studies = list(plan.in_forms(studies, _forms(options.forms)))
    if options.only:
        wanted = {name for word in options.only for name in plan.GROUPS.get(word, (word,))}
        studies = [study for study in studies if study.name in wanted]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    results = run(studies, pace, quick=options.quick, keep=path)
    print(f"results: {path}")
    whole = not options.quick and not options.only
    document = options.document or (DOCUMENT if whole else RESULTS / "performance.md")
    report.write(results, document)
    print(f"report: {document}")
    for line in report.verdicts(results):
        print(line)
    if not any(study["rows"] for study in results["studies"]):
        sys.exit(1)


def run(studies: Sequence[Study], pace: Pace, *, quick: bool, keep: Path | None = None) -> dict[str, Any]:
    """Make the studies one after the other and return the results, JSON-able.

    Args:
        studies: What to do.
        pace: How thoroughly.
        quick: Whether this is the short run.
        keep: Has the results so far after each study, so that a run that is cut short was not for nothing.
    """
    start = time.monotonic()
    done: list[dict[str, Any]] = []
    results = {"machine": describe(), "pace": asdict(pace), "quick": quick, "took_s": 0.0, "studies": done}
    for study in studies:
        print(f"{time.monotonic() - start:4.0f} s  {study.title}", flush=True)
        result = run_study(study, pace, lambda line: print(f"      {line}", flush=True))
        done.append(result)
        _summarise(result)
        results["took_s"] = time.monotonic() - start
        if keep is not None:
            keep.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _summarise(result: dict[str, Any]) -> None:
    forms, yardstick = result["forms"], result["rows"].get(report.YARDSTICK, {})
    for name, row in result["rows"].items():
        figures = [_figure(metric, row, yardstick) for metric in result["metrics"] if metric["key"] in row]
        said = name.endswith(INTERPRETED_SUFFIX) or name not in forms
        named = name if said else f"{name} ({forms[name]})"
        print(f"        {named:34} {', '.join(figures)}", flush=True)
    print(f"        ({result['took_s']:.0f} s)", flush=True)


def _figure(metric: dict[str, Any], row: dict[str, Any], yardstick: dict[str, Any]) -> str:
    """Return a median, and how many times HAProxy's it is."""
    key = metric["key"]
    times = ratio(row[key]["median"], yardstick[key]["median"] if key in yardstick else None)
    compared = "" if times is None or row is yardstick else f" x{times:.2f}"
    return f"{metric['title']} {shown(row[key]['median'])} {metric['unit']}{compared}"


def _forms(wanted: str | None) -> str | None:
    """Return which forms of ours to run: where it is not compiled, there is one."""
    if form() == COMPILED:
        return wanted
    print("our data plane is not compiled here: all its rows are interpreted", flush=True)
    return "installed"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = sorted({*plan.GROUPS, *(study.name for study in (*plan.full(), *plan.quick()))})
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer studies, shorter turns: a few minutes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="STUDY", help=f"of: {', '.join(names)}")
    parser.add_argument(
        "--forms",
        choices=plan.FORMS,
        help="of our data plane: as it is installed, interpreted, or both (default: both where a target is about them)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="counted turns of each contender (default 6, for curves 3; with --quick 3 and 2)",
    )
    parser.add_argument(
        "--seconds", type=float, help="of a turn (default 0.6, for curves 0.4; with --quick 0.5 and 0.3)"
    )
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="measure nothing, write the document of this run"
    )
    parser.add_argument("--document", type=Path, metavar="FILE", help="where the document goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
