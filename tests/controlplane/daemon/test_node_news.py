"""What becomes of nodes is told once, when it happens."""

from __future__ import annotations

from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Entry, picture_of, seconds_of
from controlplane.daemon.node_news import NodeNews

AT = "2026-01-02T03:04:05.000Z"


def picture(cluster="edge", **sessions):
    """Return a picture of nodes that have a session, or none."""
    entries = [
        Entry(name, NodeRecord(node=name, at=AT, converged=True).encode(), session, 1)
        for name, session in sessions.items()
    ]
    return picture_of(cluster, entries, now=0.0, wall=seconds_of(AT))


def test_news_are_told_once():
    """In the log and as events; a node that is well at the first look is none."""
    now, events, lines = [None], [], []
    news = NodeNews(lambda: now[0], events.append, lines.append)
    news.look()
    now[0] = picture(a="s", b=None)
    news.look()
    news.look()
    assert lines == [f"node b of edge: gone since {AT}"]
    assert events == [{"type": "node", "node": "b", "cause": f"gone since {AT}"}]
    now[0] = picture(a=None, b="s", c="s")
    news.look()
    assert lines[1:] == [f"node a of edge: gone since {AT}", "node b of edge: live", "node c of edge: live"]


def test_another_cluster_is_looked_at_anew():
    """Its nodes are not those of before, whatever they are called."""
    now, lines = [picture(a="s")], []
    news = NodeNews(lambda: now[0], lambda _: None, lines.append)
    news.look()
    now[0] = picture("core", a="s", b=None)
    news.look()
    assert lines == [f"node b of core: gone since {AT}"]
