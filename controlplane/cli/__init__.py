"""lb-control: what people and scripts type."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run `lb-control`.

    The daemon ignores SIGHUP until it can read its file again, which it reads for the first time after that; and SIGUSR1,
    which a rotation of logs may send to everybody. Both would end it. Other commands end with their terminal.
    """
    if "run" in sys.argv[1:]:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    from controlplane.cli.entry import main as command  # noqa: PLC0415 - after the first thing to do

    command()
