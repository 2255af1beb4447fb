"""The openssl program on both sides: it says what was agreed on, and passes lines on."""

import pytest

from tests.support.openssl import SClient, SServer
from tests.support.tls import CertificateAuthority

pytestmark = [pytest.mark.needs("openssl")]


@pytest.fixture
def authority(tmp_path) -> CertificateAuthority:
    """The authority of the certificates here."""
    return CertificateAuthority(tmp_path)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_line_goes_there_and_back(authority, version):
    """What is sent comes back turned round, over the version that was wanted."""
    wanted = "-" + version.lower().replace("v", "").replace(".", "_")
    with SServer(authority.issue("db.example.com")) as server:
        with SClient(server.address, authority.ca, wanted, name="db.example.com") as client:
            assert f"{version}, Cipher is" in client.say("hello", "olleh")
            client.quit()
            assert client.returncode == 0
        server.wait_output(f"Protocol version: {version}")


def test_another_name_is_refused(authority):
    """Who answers under a name that it is not is not believed."""
    with (
        SServer(authority.issue("db.example.com")) as server,
        SClient(server.address, authority.ca, name="web.example.com") as client,
    ):
        assert "hostname mismatch" in client.wait_end().lower()
        assert client.returncode != 0
