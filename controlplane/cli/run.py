"""The command that is the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.output import command
from controlplane.cli.settings import Kind, Settings, key_of, token_of
from controlplane.desired.location import FileSource, Home
from controlplane.discovery.consul.settings import PREFIX
from schemas.http.hosts import host_name

if TYPE_CHECKING:
    from controlplane.discovery.consul.key import KeySource


def home_of(text: str) -> Home | KeySource:
    """Read a path, or `consul-kv:PATH`."""
    if text.startswith(PREFIX):
        return key_of(text)
    if text == "-" or _is_pipe(text):
        what = "standard input" if text == "-" else f"{text} is a pipe, and"
        raise ValueError(f"{what} cannot be watched; name a file, or apply it: lb-control apply {text}")
    return FileSource(Path(text))


def _is_pipe(path: str) -> bool:
    """Tell whether a pipe is there, as far as one may look: what cannot be looked at is tried again by the daemon."""
    try:
        return Path(path).is_fifo()
    except OSError:
        return False


@command(
    "lb-control run /etc/lb/lb.yaml",
    "lb-control run lb.yaml --http 127.0.0.1:7700         # and a page to look at",
    "lb-control run lb.yaml --http :7700 --http-token-file http.token",
    "lb-control run --http 127.0.0.1:7700 --http-host lb.example.com",
    "lb-control run consul-kv:lb/edge                     # the file is a key",
)
@click.argument("home", metavar="[FILE|consul-kv:PATH]", type=Kind("file or key", home_of), required=False)
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="Serve the dashboard and the API over TCP as well; without a token read-only, and on this machine only.",
)
@click.option(
    "--http-token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The token that TCP clients need.",
)
@click.option(
    "--http-host",
    "http_hosts",
    metavar="NAME",
    type=Kind("name", host_name),
    multiple=True,
    help="A name by which a proxy leads to --http; repeatable. IP addresses and localhost need none.",
)
@click.pass_obj
def run(
    settings: Settings,
    home: Home | KeySource | None,
    http: str | None,
    http_token_file: Path | None,
    http_hosts: tuple[str, ...],
) -> None:
    """Be the daemon: watch FILE and Consul, push, serve the control socket.

    FILE is taken whenever it changes; an invalid one is shown in `status`, and what ran before goes on. In its
    place can be a key in Consul, which several nodes can follow; CONSUL_HTTP_ADDR names the agent.
    SIGHUP reads it again. SIGTERM ends the daemon; data planes go on without it.
    """
    if http is None and http_hosts:
        raise click.UsageError("--http-host needs --http")

    from controlplane.daemon import daemon  # noqa: PLC0415 - aiohttp takes 200 ms, which only the daemon pays

    daemon.run(
        daemon.DaemonSettings(
            home=home,
            runtime_dir=settings.runtime_dir(),
            state_dir=settings.state_dir(),
            find=settings.endpoints,
            find_draining=settings.draining,
            token=settings.token(),
            tls=settings.tls(),
            http=http,
            http_hosts=http_hosts,
            http_token=None if http_token_file is None else token_of("--http-token-file", http_token_file),
        )
    )
