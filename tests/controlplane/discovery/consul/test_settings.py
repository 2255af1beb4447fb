from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.discovery.consul.settings import SettingsError, settings_from_environment, with_address

BASE = Path("/etc/lb")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("https://consul.example:8501", "https://consul.example:8501"),
        ("https://consul.example", "https://consul.example:443"),
        ("http://[::1]:8500/", "http://[::1]:8500"),
        ("localhost", "http://localhost:8500"),
        ("10.0.0.1:8600", "http://10.0.0.1:8600"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
    ],
)
def test_addresses(text, expected):
    """An address is what Consul's own tools take, in one normal form."""
    assert with_address(text).address() == expected


@pytest.mark.parametrize(
    "text",
    [
        "ftp://x",
        "http://",
        "http://u:p@h:1",
        "http://h:1/v1",
        "http://h:1?x=1",
        "http://h:port",
        "unix://run",
        "http://h:99999",
    ],
)
def test_addresses_that_are_none(text):
    """What would be dropped unseen, or leak into logs, is refused."""
    with pytest.raises(SettingsError):
        with_address(text)


def test_environment_is_read_like_consul_does():
    """The variables mean what they mean to Consul's own tools."""
    found = settings_from_environment(
        {
            "CONSUL_HTTP_ADDR": "consul.example:8501",
            "CONSUL_HTTP_SSL": "1",
            "CONSUL_HTTP_SSL_VERIFY": "F",
            "CONSUL_HTTP_TOKEN": "secret",
            "CONSUL_HTTP_TOKEN_FILE": "token",
            "CONSUL_CACERT": "/ca.pem",
            "CONSUL_CLIENT_CERT": "me.pem",
            "CONSUL_CLIENT_KEY": "me.key",
        },
        base=BASE,
    )
    assert found.address() == "https://consul.example:8501"
    assert (found.token, found.token_file, found.ca_file) == ("secret", BASE / "token", Path("/ca.pem"))
    assert (found.cert_file, found.key_file, found.verify) == (BASE / "me.pem", BASE / "me.key", False)
    assert "secret" not in repr(found)


def test_empty_environment():
    """Without variables it is the agent beside us."""
    found = settings_from_environment({}, base=BASE)
    assert (found.address(), found.verify, found.token) == ("http://127.0.0.1:8500", True, "")


@pytest.mark.parametrize("name", ["CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY"])
def test_bad_booleans(name):
    """A boolean that is none is an error that names it, not a default."""
    with pytest.raises(SettingsError, match=name):
        settings_from_environment({name: "maybe"}, base=BASE)
