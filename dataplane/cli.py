"""`lb-dataplane`: the command line of a data plane."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from dataplane.build import BUILD


def _directory(variable: str, for_root: str, xdg: str, fallback: str) -> Path:
    """Return a default directory: $variable, else root's, else below $xdg or `fallback` in the home directory.

    Without a `fallback`, one of them has to be set.
    """
    if value := os.environ.get(variable):
        return Path(value)
    if os.geteuid() == 0:
        return Path(for_root)
    base = os.environ.get(xdg)
    if not base and not fallback:
        raise click.UsageError(
            f"no directory for the socket: set {variable} or {xdg}, or name one with --runtime-dir"
        )
    try:
        return (Path(base) if base else Path.home() / fallback) / "lb"
    except RuntimeError as error:  # no HOME, and this user has no entry among the users
        raise click.UsageError(
            f"no directory for the last good snapshot: set {variable} or {xdg}, or name one with --state-dir"
        ) from error


_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
EXAMPLES = """\b
Examples:
  BACKENDS=127.0.0.1:5001,127.0.0.1:5002 lb-dataplane --log-format text
  lb-dataplane --config lb.yaml
  lb-dataplane --workers auto              # then: lb-control apply lb.yaml
  lb-dataplane --workers auto --takeover   # an upgrade that loses no client
  lb-dataplane --reuseport                 # once per core
  lb-dataplane --access-log /var/log/lb.jsonl --access-log-errors
  lb-dataplane --metrics 127.0.0.1:9464    # for Prometheus
"""


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Offer the names of the data planes in the runtime directory, for a TAB after --name."""
    try:
        given = context.params.get("runtime_dir")
        directory = Path(given) if given else _directory("LB_RUNTIME_DIR", "/run/lb", "XDG_RUNTIME_DIR", "")
        found = sorted(
            path.name.removeprefix("dataplane-").removesuffix(".sock")
            for path in directory.glob("dataplane-*.sock")
        )
    except (click.UsageError, OSError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def _counts(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Offer numbers of workers, for a TAB."""
    offered = ["auto", *map(str, range(1, (os.cpu_count() or 1) + 1))]
    return [each for each in offered if each.startswith(incomplete)]


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--workers",
    metavar="N|auto",
    default="1",
    shell_complete=_counts,
    help="How many worker processes; auto: one for each core.",
)
@click.option(
    "--reuseport",
    is_flag=True,
    help="Share the listening addresses with other processes: start one per core.",
)
@click.option(
    "--takeover",
    is_flag=True,
    help="Replace the running process of this --name, which hands over its listening sockets and drains.",
)
@click.option("--cpu-affinity", is_flag=True, help="Tie each worker to a core of its own.")
@click.option(
    "--drain-detached",
    is_flag=True,
    help="Under systemd: a restart does not wait until this process has drained. Needs KillMode=process.",
)
@click.option(
    "--name",
    shell_complete=_names,
    help="Of the socket and the saved snapshot.  [main; core-0, core-1, … with --reuseport]",
)
@click.option("--config", type=_FILE, metavar="lb.yaml", help="Run this file; SIGHUP reads it again.")
@click.option(
    "--runtime-dir", type=_FOLDER, metavar="DIR", help="For the socket.  [$LB_RUNTIME_DIR, /run/lb]"
)
@click.option(
    "--state-dir",
    type=_FOLDER,
    metavar="DIR",
    help="For the last good snapshot.  [$LB_STATE_DIR, /var/lib/lb]",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="For programs, or for people.",
)
@click.option(
    "--access-log",
    type=click.Path(allow_dash=True, readable=False),
    metavar="off|-|FILE",
    default="off",
    show_default=True,
    help="One JSON object a connection; SIGUSR1 opens the file anew.",
)
@click.option(
    "--access-log-errors", is_flag=True, help="Only connections that did not end by both sides' leave."
)
@click.option(
    "--access-log-slower-than",
    metavar="DURATION",
    help="Only clients who waited longer for a first byte, such as 500ms. With --access-log-errors: those of either.",
)
@click.option(
    "--access-log-sample",
    metavar="SHARE",
    help="Only this share of connections that ended well, such as 0.01; each line says which.",
)
@click.option(
    "--access-log-sample-errors",
    is_flag=True,
    help="Sample those that did not end well, too; else all are kept.",
)
@click.option(
    "--otel-sample",
    metavar="SHARE",
    help="An OpenTelemetry span for this share of connections.  [0.01 with --otel-endpoint, else none]",
)
@click.option(
    "--otel-endpoint",
    metavar="URL",
    help="Where spans go, over OTLP/HTTP.  [$OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4318]",
)
@click.option(
    "--api", metavar="HOST:PORT", help="Serve the API on TCP, too; needs --token-file or --tls-client-ca."
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve /metrics, /livez and /readyz on TCP to whoever asks, and nothing else.",
)
@click.option("--token-file", type=_FILE, metavar="FILE", help="The token that clients of --api need.")
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="The certificate of --api.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key.")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    metavar="FILE",
    help="Take clients of --api with a certificate that this authority has signed.",
)
@click.version_option(package_name="livelb", message=f"%(prog)s, version %(version)s, {BUILD}")
def main(**given: object) -> None:
    """Accept TCP clients and relay them to live backends.

    What to run comes from --config, from LISTEN and BACKENDS in the environment, from the control plane
    (lb-control), or from what ran last.
    """
    begun = None
    if given["takeover"] or _are_several(str(given["workers"])):
        # Before anything is loaded that only a supervisor needs. Should it be one too many, it ends with this process.
        from dataplane.worker.fork_server import begin  # noqa: PLC0415 - see above

        with contextlib.suppress(OSError):  # the supervisor tries it again, and tells
            begun = begin()
    from dataplane.errors import UsageError  # noqa: PLC0415 - --help answers without it
    from dataplane.main import run  # noqa: PLC0415 - the same
    from dataplane.options import options_from  # noqa: PLC0415 - the same

    try:
        options = options_from(given, _directory)
    except UsageError as error:
        if begun is not None:
            begun.dismiss()
        raise click.UsageError(str(error)) from error
    sys.exit(run(options, begun))


def _are_several(workers: str) -> bool:
    """Tell whether `--workers` asks for more than one, as far as it is worth a guess."""
    return workers == "auto" or (workers.isdecimal() and workers != "1")


if __name__ == "__main__":
    main()
