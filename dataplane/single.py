"""A data plane of one process with one event loop, which relays by itself."""

from __future__ import annotations

import random
import signal
import socket
from typing import Any

from dataplane.api.server import Endpoints
from dataplane.errors import Refused, StartError
from dataplane.ipc.systemd import inherited_sockets
from dataplane.node.apply import Applier
from dataplane.node.initial import load_initial, reread
from dataplane.node.listeners import OwnListeners
from dataplane.node.node import Node
from dataplane.node.slices import lasting, tune_collector
from dataplane.process import Process
from dataplane.report.reader import Reader
from dataplane.telemetry.connection_log import Recording


class Single:
    """Relays in this process (dataplane.process.Role); StartError if spans are asked for, and cannot be had."""

    def __init__(self, process: Process) -> None:
        options, events = process.options, process.events
        self._process = process
        self._node = Node(process.reactor, events, random.SystemRandom())
        self._listeners = OwnListeners(self._node, reuse_port=options.reuse_port)
        self.applier = Applier(self._node, process.store, self._listeners)
        try:
            self._recording = recording = Recording(options.recording, options.name, events.emit)
        except ValueError as error:
            raise StartError(f"OpenTelemetry: {error}") from error
        self._node.access_log = self._recording.record
        self.source = Reader(
            self._node, lambda: process.log.dropped + recording.dropped_lines, recording.spans
        )
        self.reopen = self._recording.reopen
        self.connections = self._node.connections
        self.wait_empty = self._node.drain
        self.close = self._recording.close

    async def begin(self, endpoints: Endpoints) -> None:
        """Run what there is, and serve the API."""
        process = self._process
        tune_collector()
        self.source.outcomes.start()
        self._recording.watch(process.reactor)
        self._listeners.new.inherit(inherited_sockets())
        await load_initial(self.applier, process.options.config)
        with lasting():  # the libraries of the API are loaded while clients are served
            await endpoints.listen(relays=True)
        await endpoints.serve()

    def sockets(self) -> list[tuple[str, socket.socket]]:
        """Return every listener's."""
        return [(one.address, one.sock) for one in self._node.listeners.values()]

    async def leave(self, *, last: bool) -> None:
        """Stop accepting; what is closed for good, the next process of this name can have."""
        if last:
            self._listeners.close()
        else:
            self._listeners.leave_all()

    def kill(self) -> None:
        """Do nothing: connections end with this process."""

    def hang_up(self) -> None:
        """Read --config again."""
        config = self._process.options.config
        if config is None:
            self._process.events.emit("reread", cause="SIGHUP, but there is no --config to read again")
        else:
            self._process.background.once("reading --config again", lambda: reread(self.applier, config))

    def lose_keeper(self) -> None:
        """Do as if the signal had come that killed the process that the service manager knows."""
        if self._process.life.leaving_since is None:
            self._process.stop(signal.SIGTERM)

    # -- there are no workers (dataplane.api.plane.Workers) ------------------------------------------

    async def restart(self) -> dict[str, Any]:
        """Refuse: what would be replaced is this process itself."""
        hint = "start its successor with `lb-dataplane --takeover`"
        raise Refused(409, "single_process", f"a single process has no workers to restart; {hint}")

    async def resize(self, count: int) -> dict[str, Any]:
        """Refuse."""
        hint = f"see lb-dataplane --takeover --workers {count}"
        raise Refused(409, "single_process", f"a single process has no workers; {hint}")
