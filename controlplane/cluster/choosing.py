"""Which nodes a canary takes, and whether they have told of themselves lately."""

from __future__ import annotations

from collections.abc import Collection

from controlplane.cluster.looking import Keys
from controlplane.core.nodes import Picture
from controlplane.errors import HeldBackError


def followers(picture: Picture, keys: Keys) -> set[str]:
    """Return the live nodes that follow a key."""
    return {view.name for view in picture.live() if view.record is not None and view.record.key == keys.path}


def choose(picture: Picture, keys: Keys, wanted: int | tuple[str, ...]) -> tuple[str, ...]:
    """Return the nodes of a canary: so many, the first by name of those that run what they should; or those that are named.

    Raises:
        HeldBackError: There are not so many, or no such nodes.
    """
    fit, cluster = followers(picture, keys), picture.cluster
    if not isinstance(wanted, int):
        if missing := [name for name in wanted if name not in fit]:
            raise HeldBackError(
                f"nothing was changed: no live node of {cluster} that follows {keys.name} is called "
                f"{', '.join(missing)}; there are: {', '.join(sorted(fit)) or 'none'}"
            )
        return wanted
    sound = [
        view.name
        for view in sorted(picture.live(), key=lambda view: view.name)
        if view.record is not None and view.name in fit and view.record.converged and not view.record.error
    ]
    if wanted >= len(fit):
        raise HeldBackError(
            f"nothing was changed: {len(fit)} live nodes of {cluster} follow {keys.name}, so a canary of {wanted} would leave "
            "none to compare with"
        )
    if wanted > len(sound):
        raise HeldBackError(
            f"nothing was changed: only {len(sound)} nodes of {cluster} run what they should: "
            f"{', '.join(sound) or 'none'}; see lb-control nodes"
        )
    return tuple(sound[:wanted])


class Fresh:
    """Tells whether nodes have told of their numbers since it was first asked."""

    def __init__(self, nodes: Collection[str]) -> None:
        self._nodes = nodes
        self._old: dict[str, str] | None = None

    def has_told(self, picture: Picture) -> bool:
        """Take the newest picture in."""
        records = {view.name: view.record for view in picture.live()}
        now = {name: record.at for name in self._nodes if (record := records.get(name)) is not None}
        if self._old is None:
            self._old = now
        return all(self._old.get(name) != at for name, at in now.items())
