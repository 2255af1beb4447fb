"""The command that tells routers whether this node may have clients."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

from controlplane.cli import output
from controlplane.cli.output import command
from controlplane.cli.settings import DURATION, Kind, Settings
from controlplane.core import announcement
from controlplane.core.announcement import Call, Prefix, Routes
from controlplane.core.drain import Drain
from controlplane.core.readiness import Readiness, Reason
from controlplane.errors import ControlError
from controlplane.operations.readiness import asked

_SLACK_S: Final = 1.0
"""What a round may take beside its question and its pause."""


@command(
    "lb-control announce --prefix 203.0.113.10/32         # a process of ExaBGP",
    "lb-control announce --prefix 203.0.113.10 --med 50 --community 64512:100",
    "lb-control announce --prefix 203.0.113.10 --interface livelb0   # BIRD, FRR",
)
@click.option(
    "--prefix",
    "prefixes",
    type=Kind("prefix", announcement.prefix),
    multiple=True,
    required=True,
    help="An address or network that leads to this node; repeatable.",
)
@click.option(
    "--next-hop",
    type=Kind("address", announcement.next_hop),
    default="self",
    show_default=True,
    help="Where routers send packets for it; self: this end of their session.",
)
@click.option(
    "--med",
    type=click.IntRange(0, 0xFFFFFFFF),
    default=100,
    show_default=True,
    help="The metric while this node is preferred.",
)
@click.option(
    "--med-lowered",
    type=click.IntRange(0, 0xFFFFFFFF),
    default=200,
    show_default=True,
    help="The metric while `node drain` has lowered it.",
)
@click.option(
    "--community",
    "communities",
    type=Kind("community", announcement.community),
    multiple=True,
    help="64512:100, a large one as 64512:1:2, or no-export; repeatable.",
)
@click.option(
    "--interface",
    metavar="NAME",
    help="Not for ExaBGP: keep the prefixes as addresses on this interface, which BIRD or FRR announces.",
)
@click.option(
    "--interface-lowered", metavar="NAME", help="The same, while `node drain` has lowered this node."
)
@click.option("--interval", type=DURATION, default="1s", show_default=True, help="Between two questions.")
@click.option(
    "--timeout", type=DURATION, default="2s", show_default=True, help="For the data planes' answers."
)
@click.option(
    "--hold",
    type=DURATION,
    default="6s",
    show_default=True,
    help="The routes go when this command has given no sign of life for so long.",
)
@click.pass_obj
def announce(settings: Settings, /, *, prefixes: tuple[Prefix, ...], hold: float, **given: Any) -> None:
    """Announce this node's routes while `ready` says that it may have clients, and withdraw them when not.

    ExaBGP runs it as a process, and reads its commands from standard output. With --interface it needs no ExaBGP, but
    the right to change addresses (CAP_NET_ADMIN).

    While `node drain` has lowered this node, the metric is higher, or the addresses are on the other interface. When
    this command dies, hangs or gets no answer, the routes go.
    """
    interval, timeout, interface = given["interval"], given["timeout"], given["interface"]
    if hold < interval + timeout + _SLACK_S:
        raise click.UsageError(f"--hold must be --interval, --timeout and {_SLACK_S:g} s together, or longer")
    if given["interface_lowered"] and not interface:
        raise click.UsageError("--interface-lowered needs --interface")

    def ask() -> Readiness:
        try:
            return asked(settings.clients, settings.node_record(), timeout)
        except ControlError as error:  # a token's file, a certificate: it may come back
            return Readiness(((Reason.UNKNOWN, str(error)),), Drain())

    def tell(text: str) -> None:
        click.echo(output.plain(f"lb-control announce: {text}"), err=True)

    if interface is None:
        _need_exabgp()
        from controlplane.announcing.exabgp import Announcer  # noqa: PLC0415 - one of the two

        told = {name: given[name] for name in ("next_hop", "med", "med_lowered", "communities")}
        sys.exit(Announcer(Routes(prefixes, **told), ask, tell).run(interval, hold))
    from controlplane.announcing.interface import Addresses, ip_command, keep  # noqa: PLC0415 - the other

    interfaces = {Call.PREFERRED: interface, Call.LOWERED: given["interface_lowered"] or interface}
    keep(Addresses(prefixes, interfaces, hold, ip_command()), ask, tell, interval)


def _need_exabgp() -> None:
    """Refuse to run without ExaBGP's ends of two pipes: what is opened next would be taken for them."""
    for number, name in enumerate(("input", "output")):
        try:
            os.fstat(number)
        except OSError:
            raise click.UsageError(
                f"standard {name} is closed: ExaBGP starts this command, and talks to it there"
            ) from None
