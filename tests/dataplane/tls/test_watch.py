"""Whoever uses files of TLS is told what became of them."""

from __future__ import annotations

from typing import Any

from dataplane.core.spec import CertificateSpec, TlsSpec
from dataplane.tls.files import shown_time
from dataplane.tls.renewal import SETTLE_S
from dataplane.tls.service import News, ServerTls
from dataplane.tls.watch import Used, Watch, tell
from tests.support.tls import CertificateAuthority


async def test_news_become_events_of_their_service(tmp_path):
    """Taken, and not taken; nothing where nothing is new."""
    authority = CertificateAuthority(tmp_path)
    pair = authority.issue("a.example")
    wall = pair.cert.stat().st_mtime
    tls = ServerTls(TlsSpec((CertificateSpec(str(pair.cert), str(pair.key)),)), wall)
    events: list[tuple[str, dict[str, Any]]] = []
    now = [0.0]
    watch = Watch(
        lambda: [Used("web", tls)],
        lambda kind, **fields: events.append((kind, fields)),
        clock=lambda: now[0],
        wall_clock=lambda: wall,
    )
    await watch.look()
    assert events == []
    authority.issue("a.example", file="new").put(pair.cert, pair.key)
    await watch.look()
    ends = shown_time(next(tls.files.views()).not_after)
    common = {"service": "web", "place": "tls.certificates[0]", "path": str(pair.cert), "ends": ends}
    assert events == [("certificate_renewed", common)]
    pair.key.unlink()
    await watch.look()
    now[0] = SETTLE_S
    await watch.look()
    kind, fields = events[1]
    assert kind == "certificate_not_renewed"
    assert fields.items() >= common.items()
    assert fields["cause"] == f"{pair.key} cannot be read: no such file or directory"
    assert "the pair before stays in use" in fields["todo"]


async def test_without_tls_no_thread_is_asked():
    """It costs a plain data plane nothing."""
    await Watch(list, lambda *_, **__: None, clock=lambda: 1 / 0).look()


def test_authorities_have_no_end():
    """There may be hundreds in a file."""
    events: list[dict[str, Any]] = []
    news = News("authorities_not_renewed", "tls.client_ca", "/ca.pem", "is a directory")
    tell(lambda _kind, **fields: events.append(fields), "web", news)
    assert "ends" not in events[0]
    assert "the authorities before stay in use" in events[0]["todo"]
