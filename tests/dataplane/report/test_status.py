"""Status of figures."""

from __future__ import annotations

from dataplane.report.figures import Figures, ListenerFigures, total
from dataplane.report.reader import Reader
from dataplane.report.status import describe
from tests.dataplane.report.counted import make_node


async def test_moments_are_times_of_the_day() -> None:
    """Inside they are on the monotonic clock."""
    node = await make_node(0)
    told = await describe(await total(Reader(node).parts(each=True)), 1_800_000_000.0)
    assert told["web"]["backends"][0]["health"]["since"].startswith("2027-01-15T09:")


async def test_an_address_that_nobody_accepts_from_is_not_shown() -> None:
    """Its number counts where somebody does, and that is for whoever knows the addresses to say."""
    node = await make_node(1000)
    figures = await total(Reader(node).parts(each=True))
    figures.add(Figures(listeners={("web", "unix:/gone"): ListenerFigures(5, None)}))
    told = await describe(figures, 0.0)
    assert [one["address"] for one in told["web"]["listeners"]] == ["unix:/x", "unix:/y"]
