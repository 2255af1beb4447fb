"""The `openssl` program as a TLS client and as a TLS server."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.programs import require
from tests.support.tls import Pair
from tests.support.wait import DEADLINE_S


class SClient:
    """`openssl s_client`, which says what it agreed on, and then is a pipe.

    It verifies the server, and ends with an error if it does not believe it.

    Args:
        address: `host:port`.
        ca: The authority that it believes.
        arguments: More of its options, as `["-tls1_2"]`.
        name: Whom it asks for (SNI); None: for nobody.
        answers: Who must answer; None: who was asked for, or, if nobody was, whoever is of the authority.
    """

    def __init__(
        self, address: str, ca: Path, *arguments: str, name: str | None = None, answers: str | None = None
    ) -> None:
        asked = ["-noservername"] if name is None else ["-servername", name]
        verifying = ["-CAfile", str(ca), "-verify_return_error"]
        if answers or name:
            verifying += ["-verify_hostname", answers or name or ""]
        argv = [require("openssl"), "s_client", "-connect", address, *asked, *verifying, *arguments]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def say(self, line: str, answer: str) -> str:
        """Send a line, wait for a text in what comes, and return all that it has written so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self.wait_output(answer)

    def wait_output(self, text: str) -> str:
        """Wait until it has written a text, and return all that it has written.

        Raises:
            AssertionError: It ended before, or took too long.
        """
        end = time.monotonic() + DEADLINE_S
        while text not in self.output:
            assert self._read(end), f"no {text!r} from s_client:\n{self.output}"
        return self.output

    def quit(self) -> str:
        """Have it end TLS in good order, and return all that it has written."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"Q\n")
        self._process.stdin.close()
        return self.wait_end()

    def wait_end(self) -> str:
        """Wait until it has ended by itself, and return all that it has written."""
        end = time.monotonic() + DEADLINE_S
        while self._read(end):
            pass
        self._process.wait(DEADLINE_S)
        return self.output

    @property
    def returncode(self) -> int | None:
        """How it has ended; None while it runs."""
        return self._process.poll()

    def _read(self, end: float) -> bool:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        readable, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        assert readable, f"s_client is silent:\n{self.output}"
        piece = os.read(fd, 65536)
        self.output += piece.decode(errors="replace")
        return bool(piece)


def ask_over_tls(address: str, ca: Path, *arguments: str, name: str | None = None) -> str:
    """Say `hello` to a `LineServer` behind, and return what s_client wrote: what was agreed on, then the answer."""
    with SClient(address, ca, *arguments, name=name) as client:
        client.say("hello", ":hello")
        return client.quit()


class SServer(Program):
    """`openssl s_server`, which turns round each line that it gets (`hello`: `olleh`); one client after the other.

    Args:
        pair: What it shows.
        arguments: More of its options, as `["-tls1_2"]`.
    """

    def __init__(self, pair: Pair, arguments: Sequence[str] = ()) -> None:
        super().__init__([])
        self._held = HeldPort()
        self.address = self._held.address
        shown = ["-cert", str(pair.cert), "-key", str(pair.key)]
        self.argv = [require("openssl"), "s_server", "-accept", self.address, *shown, "-rev", *arguments]

    def ready(self) -> bool:
        """Tell whether it listens; nothing is asked, since it would serve that."""
        return "ACCEPT" in self.output

    def close(self) -> None:
        """End it, and give its port back."""
        try:
            super().close()
        finally:
            self._held.release()
