"""From options to a running data plane: one process, or a supervisor with its workers; and to the exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop

from dataplane.api.server import api_path, sweep
from dataplane.background import traced
from dataplane.errors import StartError
from dataplane.ipc.takeover import orphans
from dataplane.options import Options
from dataplane.process import Process
from dataplane.single import Single
from dataplane.supervisor.process import Supervision
from dataplane.telemetry.line_writer import LineSink
from dataplane.telemetry.log import event_writer
from dataplane.worker.fork_server import Begun
from schemas.system.ownership import explain_error
from schemas.system.unix_socket import InUse, OwnSocket


def run(options: Options, begun: Begun | None = None) -> int:
    """Run a data plane until it ends; return the exit code. `begun` is what its workers can be forked from.

    One worker needs no supervisor, with two exceptions: whoever is taken over may have several sockets for an address,
    and so may the orphans that a supervisor has left when it was killed. None of these may be closed.
    """
    log = LineSink(2)
    own = OwnSocket(api_path(options.runtime_dir, options.name))
    try:
        if not options.takeover:
            own.acquire()
        sweep(options.runtime_dir, options.name)
        supervised = options.workers > 1 or options.takeover or orphans(options.runtime_dir, options.name)
        if begun is not None and not supervised:
            begun.dismiss()
        role = partial(Supervision, begun=begun) if supervised else Single
        uvloop.run(_live(role, options, log, own))
    except (InUse, StartError, OSError) as error:
        log.close()
        print(f"lb-dataplane: {_words(error)}", file=sys.stderr)  # noqa: T201 - the command's last word
        return error.exit_code if isinstance(error, StartError) else 1
    except Exception as error:  # noqa: BLE001 - a bug of ours: said as everything else is that is logged
        event_writer(log, options.log_format)(
            "unhandled", message="the process ends", traceback=traced(error)
        )
        log.close()
        return 1
    finally:
        own.close()
    log.close()
    return 0


def _words(error: Exception) -> str:
    """Return what to say of it; of a path, also whose it is."""
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return f"{error.filename}: {explain_error(Path(error.filename), error)}"
    if isinstance(error, InUse):
        return f"{error}; choose another --name, or end that one"
    return str(error)


async def _live(
    role: Callable[[Process], Single | Supervision], options: Options, log: LineSink, own: OwnSocket
) -> None:
    """Live the life of one process; no task of it is left."""
    problem: Exception | None = None
    async with asyncio.TaskGroup() as group:
        try:
            process = Process(options, log, own, group)
            await process.run(role(process))
        except (InUse, StartError, OSError) as error:
            problem = error  # outside of the group it is itself, and not a group of one
    if problem is not None:
        raise problem
