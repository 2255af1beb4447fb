"""`lb-control` as a program: run to its end, or as the daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import prefork
from tests.support.dataplane import command, unix_request
from tests.support.process import Program, answers
from tests.support.wait import wait_for

COMMAND_S = 30.0
"""How long a command may take."""
OFTEN: Final = {
    "controlplane.daemon.daemon._NOTICE_S": 0.1,
    "controlplane.daemon.registration._LOOK_S": 0.2,
    "controlplane.dataplanes.fleet._SCAN_S": 0.1,
}
"""The daemon looks at sockets and faults once or twice a second. Tests wait for each look.

Not so at its file: tests that change that, and then say `apply`, are to come before the daemon.
"""


class Done:
    """What a command did."""

    def __init__(self, finished: subprocess.CompletedProcess[str]) -> None:
        self.code = finished.returncode
        self.out = finished.stdout
        self.err = finished.stderr

    def json(self) -> Any:
        """Decode the output."""
        return json.loads(self.out)


class Control:
    """Runs commands in one pair of directories.

    Args:
        directory: Short, for sockets are below it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime_dir = directory / "run"
        self.state_dir = directory / "state"
        self.file = directory / "lb.yaml"
        self.command = [command("lb-control")]

    @property
    def environment(self) -> dict[str, str]:
        """What tells a command where it is."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.directory),
            "LB_RUNTIME_DIR": str(self.runtime_dir),
            "LB_STATE_DIR": str(self.state_dir),
        }

    def __call__(
        self,
        *arguments: object,
        prefix: tuple[str, ...] = (),
        piped: str | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> Done:
        """Run `lb-control` with these arguments.

        Args:
            arguments: Of the command.
            prefix: The command that it is given to.
            piped: Its standard input; None: nothing.
            constants: See `prefork.spawn`.
        """
        argv = [*prefix, *self.command, *map(str, arguments)]
        return Done(
            prefork.run(
                argv, self.environment, self.directory, piped=piped, constants=constants, timeout_s=COMMAND_S
            )
        )

    def write(self, value: Mapping[str, Any] | str) -> Path:
        """Replace lb.yaml, at once and whole."""
        beside = self.file.with_name("beside")
        beside.write_text(value if isinstance(value, str) else json.dumps(value))
        beside.replace(self.file)
        return self.file

    def wait_status(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the first status of the daemon for which `holds`."""
        last: dict[str, Any] = {}

        def ask() -> bool:
            last.clear()
            last.update(unix_request(self.runtime_dir / "control.sock", "GET", "/v1/status")[1])
            return bool(holds(last))

        wait_for(ask, "a status of the daemon", every_s=0.05)
        return last


class Daemon(Program):
    """`lb-control run`.

    Args:
        control: Whose directories it has.
        arguments: Of the command.
        constants: See `prefork.spawn`; more than `OFTEN`.
    """

    def __init__(
        self, control: Control, *arguments: object, constants: Mapping[str, float] | None = None
    ) -> None:
        super().__init__([command("lb-control"), "run", *map(str, arguments)])
        self.constants.update(OFTEN | dict(constants or {}))
        self._environment |= control.environment
        self.socket = control.runtime_dir / "control.sock"

    def ready(self) -> bool:
        """Tell whether the control socket answers."""
        return answers(self.socket) and unix_request(self.socket, "GET", "/livez")[0] == 200


def document(listen: str, *backends: Any, **options: Any) -> dict[str, Any]:
    """Write an lb.yaml with one service, which checks nothing unless told."""
    health = {"active": {"type": "none"}}
    web = {"listen": listen, "backends": list(backends), "health": health, **options}
    return {"version": 1, "services": {"web": web}}
