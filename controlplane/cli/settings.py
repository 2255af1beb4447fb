"""What options say: kinds of their values, those that many commands have, and the global ones: whom a command speaks to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controlplane.dataplanes import endpoint
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.dataplanes.requests import Caller, pushed_by
from controlplane.dataplanes.tls import Tls, tls_of
from controlplane.errors import InputError, PlaceError
from schemas.http.headers import TokenError, parse_token
from schemas.http.reloaded import Renewed
from schemas.quantities import parse_duration, parse_percent
from schemas.system.ownership import explain_error, user_name

if TYPE_CHECKING:
    from controlplane.discovery.consul.key import KeySource
    from controlplane.operations.drain_file import DrainFile
    from controlplane.operations.gateway import Gateway

T = TypeVar("T")


class Kind(click.ParamType[T]):
    """A kind of value: its name in usage messages, and what makes one of text, or raises ValueError with the words."""

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Read a value, unless it is one already."""
        try:
            return self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def key_of(text: str) -> KeySource:
    """Read `consul-kv:PATH`; the agent is the one that `CONSUL_HTTP_ADDR` and its like name."""
    from controlplane.discovery.consul.key import KeySource  # noqa: PLC0415 - only where a key is named
    from controlplane.discovery.consul.settings import PREFIX, settings_from_environment  # noqa: PLC0415 - the same

    if not text.startswith(PREFIX):
        raise ValueError(f"must be {PREFIX}PATH")
    return KeySource(text.removeprefix(PREFIX), settings_from_environment(os.environ, base=Path()))


DURATION = Kind("duration", parse_duration)
"""Seconds, from `30s`."""

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
timeout_option = click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, help="For all of it."
)
max_remap_option = click.option(
    "--max-remap",
    type=Kind("percent", parse_percent),
    help="Refuse if more of a service's sticky clients would move.",
)


def token_of(option: str, path: Path) -> Renewed[str]:
    """Return the token in the file that an option names, as it is whenever it is asked.

    InputError if it cannot be read, is empty, or holds what no header may.
    """

    def read() -> str:
        try:
            return parse_token(path.read_bytes())
        except OSError as error:
            problem = explain_error(path, error)
        except TokenError as error:
            problem = str(error)
        raise InputError(f"{option} {path}", [{"path": "", "message": problem}])

    token = Renewed([path], read, wrong=InputError)
    token.now()
    return token


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Make settings of the global options by name, as click has them: paths may still be text."""

    def path(name: str) -> Path | None:
        return Path(given[name]) if given.get(name) else None

    return Settings(
        os.environ,
        path("runtime_dir"),
        path("state_dir"),
        tuple(given.get("dataplanes") or ()),
        path("token_file"),
        tls_of(os.environ, **{name: path(name) for name in ("ca_file", "cert_file", "key_file")}),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options; None or empty: not given."""

    environ: Mapping[str, str]
    given_runtime_dir: Path | None
    given_state_dir: Path | None
    dataplanes: tuple[str, ...]
    token_file: Path | None
    files: Tls = field(default_factory=Tls)
    """Authorities and certificate for `https://` data planes."""

    def runtime_dir(self) -> Path:
        """Where the sockets are."""
        return self.given_runtime_dir or endpoint.runtime_dir(self.environ, os.getuid())

    def state_dir(self) -> Path:
        """Where the history is."""
        return self.given_state_dir or endpoint.state_dir(self.environ, os.getuid())

    def node_record(self) -> DrainFile:
        """Where it is written down that this node is taken out."""
        from controlplane.operations.drain_file import DrainFile  # noqa: PLC0415 - commands load what they use

        return DrainFile(self.state_dir())

    def token(self) -> Renewed[str] | None:
        """Return the token for data planes behind a URL."""
        return None if self.token_file is None else token_of("--token-file", self.token_file)

    def tls(self) -> Tls:
        """Return what `https://` data planes are spoken to with; if one is named, InputError if its files cannot be used."""
        if any(each.is_https for each in map(endpoint.endpoint_of, self.dataplanes)):
            self.files.load()
        return self.files

    def endpoints(self) -> tuple[Endpoint, ...]:
        """List the data planes: those named, else those in the runtime directory."""
        if self.dataplanes:
            return tuple(endpoint.endpoint_of(each) for each in self.dataplanes)
        return endpoint.find_dataplanes(self.runtime_dir())

    def clients(self) -> tuple[BlockingClient, ...]:
        """Make a client for each data plane.

        PlaceError if there is none; InputError if the token's file, or those for TLS, cannot be used.
        """
        found = self.endpoints()
        if not found:
            raise PlaceError(f"no data plane found: looked for {self.runtime_dir()}/dataplane-*.sock")
        caller = Caller(pushed_by("lb-control", user_name(os.getuid())), self.token(), self.tls())
        return tuple(BlockingClient(each, caller) for each in found)

    def draining(self) -> tuple[Endpoint, ...]:
        """List the processes that have been data planes, and finish what they have; none if some are named."""
        return () if self.dataplanes else endpoint.find_draining(self.runtime_dir())

    def daemon(self) -> BlockingClient | None:
        """Make a client of the daemon, if one answers; with `--dataplane` commands go straight there.

        PlaceError if it may not be seen whether there is one, or it may not be spoken to.
        """
        if self.dataplanes:
            return None
        socket = endpoint.control_socket(self.runtime_dir())
        client = BlockingClient(Endpoint("the daemon", str(socket)))
        try:
            socket.stat()
            return client if client.listens() else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # a daemon that we may not speak to is one nevertheless: there is one writer
            raise PlaceError(f"{socket}: {explain_error(socket, error)}") from error

    def gateway(self) -> Gateway:
        """Choose the way to the data planes: through the daemon if one answers."""
        from controlplane.operations.gateway import Direct, Remote  # noqa: PLC0415 - commands load what they use: --help takes 0.1 s
        from controlplane.store import Store  # noqa: PLC0415 - the same

        daemon = self.daemon()
        if daemon is not None:
            return Remote(daemon)
        return Direct(
            self.clients,
            Store(self.state_dir()),
            user_name(os.getuid()),
            tell=lambda message: click.echo(message, err=True),
            record=self.node_record(),
            find_draining=lambda: tuple(map(BlockingClient, self.draining())),
            environ=self.environ,
        )
