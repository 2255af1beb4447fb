"""`make soak`, last part: the compiled connection path under AddressSanitizer and UndefinedBehaviorSanitizer.

What is C can read where nothing is, which no test of what comes out shows for sure. So the modules are compiled once more, with
instructions that watch each access, into a folder of their own; the tests of the connection path run with them, its
playbook among them, and then a data plane with two workers under load and changes. The first finding ends the process that
has it, and so the run. Leaks are not looked for: an interpreter that ends leaves much.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
COMPILED: Final = ROOT / "build" / "sanitized"
TESTS: Final = ("tests/together", "tests/dataplane/core", "tests/dataplane/net", "tests/dataplane/worker")
PATIENCE_S: Final = 600
"""For a single test: sanitizers take three times as long, and more where others have the cores."""


def environment(library: str) -> dict[str, str]:
    """Return what a Python needs in its environment to load modules that were compiled with sanitizers.

    Args:
        library: The runtime of AddressSanitizer, which has to be there before everything else.
    """
    return {
        "LIVELB_COMPILED": str(COMPILED),
        "LD_PRELOAD": library,
        # what soak.py measures must not be what is kept from being used again
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=8",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide where an object ends
    }


def _run(argv: Sequence[object], more: Mapping[str, str]) -> None:
    words = [str(word) for word in argv]
    print("+", *words, flush=True)
    kept = {name: value for name, value in os.environ.items() if name != "LIVELB_INTERPRETED"}
    done = subprocess.run(words, cwd=ROOT, env={**kept, **more}, check=False)
    if done.returncode:
        sys.exit(f"{words[1]} has failed under the sanitizers: {done.returncode}")


def main() -> None:
    """Compile and run; exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default %(default)s)")
    parser.add_argument("tests", nargs="*", default=TESTS, help="what pytest runs (default: what relays)")
    options = parser.parse_args()
    compiler = os.environ.get("CC", "cc")
    asked = [compiler, "-print-file-name=libasan.so"]
    library = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(library).is_absolute():
        sys.exit(f"{compiler} has no AddressSanitizer")
    _run([sys.executable, "tools/compile.py", "--sanitize", "--into", COMPILED], {})
    watched = environment(library)
    said = [sys.executable, "-c", "from dataplane.build import BUILD; assert BUILD == 'compiled'"]
    _run(said, watched)
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", f"--timeout={PATIENCE_S}"]
    _run([*pytest, *options.tests], watched)
    _run([sys.executable, "tools/soak.py", "--seconds", options.seconds, "--workers", 2], watched)


if __name__ == "__main__":
    main()
