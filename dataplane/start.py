"""How the programs of a data plane begin: deaf to what would end them before they can listen to it.

SIGHUP and SIGUSR1 end a process that has not said what they mean to it. Both are sent to processes by others who do not know
how old they are (a reload, a rotation of logs), and what these programs load takes a good part of a second. So what
comes meanwhile is ignored: whatever it asks to read again is about to be read for the first time. SIGTERM ends a process
that has not begun, which is right.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from dataplane.keeper import keep


def main() -> None:
    """Run `lb-dataplane`."""
    _ignore(signal.SIGHUP, signal.SIGUSR1)
    # What is loaded stays: to look through it time and again is a tenth of a start. `slices.tune_collector` begins.
    gc.disable()
    # Pydantic would look through all installed packages for such as want to see what is validated: 15 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    if "--drain-detached" in sys.argv[1:]:
        keep()
    from dataplane.build import stale  # noqa: PLC0415 - after the first thing to do

    if stale():
        sys.stderr.write(
            "lb-dataplane: interpreted, since it was edited after it was compiled; tools/setup compiles it\n"
        )
    from dataplane.cli import main as command  # noqa: PLC0415 - the same

    command()


def worker() -> None:
    """Run the process that workers are forked from; also a terminal's ^C is their supervisor's to interpret."""
    _ignore(signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
    from dataplane.worker.fork_server import main as serve  # noqa: PLC0415 - after the first thing to do

    serve()


def _ignore(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    worker()
