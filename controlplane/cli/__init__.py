"""lb-control: what people and scripts type."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run `lb-control`.

    The daemon ignores SIGHUP until it can read its file again, which it reads for the first time after that; and SIGUSR1,
    which a rotation of logs may send to everybody. Both would end it. Other commands end with their terminal. Ctrl-C while the
    program is being loaded ends it without a word, and is an exception only for what can take one.
    """
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "run" in sys.argv[1:]:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    from controlplane.cli.entry import main as command  # noqa: PLC0415 - after the first thing to do

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()
