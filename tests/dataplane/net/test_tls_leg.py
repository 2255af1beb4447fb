"""The relay's rules with TLS on one side or on both: in each mode, and with each version."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dataplane.net.tls_rig import MODES, TlsRig, tls_rigged
from tests.support.backends import payload
from tests.support.tls import CertificateAuthority

DATA = payload(30_000_000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(
    params=[(mode, version) for mode in MODES for version in ("TLSv1_2", "TLSv1_3")], ids="-".join
)
def rig(request, authority) -> Iterator[TlsRig]:
    """A service with one backend, and deadlines that are easy to tell apart."""
    with tls_rigged(authority, *request.param, timeouts={"idle": "10s", "half_closed": "3s"}) as rig:
        yield rig


def ends(rig: TlsRig, *, from_client: bool) -> tuple[Any, Any]:
    """Return who sends and who receives."""
    client, server = rig.pair()
    return (client, server) if from_client else (server, client)


FROM = pytest.mark.parametrize("from_client", [True, False], ids=["upload", "download"])


class TestEnds:
    """A close_notify is a FIN, and two end the flow."""

    @FROM
    def test_a_half_close(self, rig, from_client) -> None:
        """After the end of one side, the other may answer as long as it likes to."""
        sender, receiver = ends(rig, from_client=from_client)
        sender.sendall(b"question")
        sender.shutdown(socket.SHUT_WR)
        assert rig.receive_end(receiver) == b"question"
        for piece in (b"one", b"two"):
            receiver.sendall(piece)
            assert rig.receive(sender, 3) == piece
        assert rig.silent(sender)
        receiver.close()
        assert rig.receive_end(sender) == b""
        rig.settle()
        assert rig.reasons == ["client_closed" if from_client else "backend_closed"]
        rig.check_accounts()

    @FROM
    def test_it_waits_for_the_bytes_before_it(self, rig, from_client) -> None:
        """An end is passed on when all that was held back before it is written, and not earlier."""
        sender, receiver = ends(rig, from_client=from_client)
        size = rig.fill(sender, DATA)
        sender.shutdown(socket.SHUT_WR)
        rig.settle()
        assert rig.receive_end(receiver) == DATA[:size]
        receiver.shutdown(socket.SHUT_WR)
        assert rig.receive_end(sender) == b""
        rig.settle()
        rig.check_accounts()
