"""Where a Consul agent is and how to speak to it: plain values, from lb.yaml or from the environment.

py-consul reads the environment in its own way: `CONSUL_HTTP_SSL=1` means plain HTTP to it, and
`CONSUL_HTTP_SSL_VERIFY=1` means no verification. So it is never asked to: what Consul's own tools understand is
parsed here, and everything is passed on by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from controlplane.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.discovery import Consul

ErrorKind = Literal["unreachable", "timeout", "denied", "misconfigured", "overloaded", "failed", "protocol"]

PREFIX = "consul-kv:"
"""How a key is written where a file's name could stand."""
DEFAULT_ADDRESS = "http://127.0.0.1:8500"
_VARIABLES = {
    "token_file": "CONSUL_HTTP_TOKEN_FILE",
    "ca_file": "CONSUL_CACERT",
    "cert_file": "CONSUL_CLIENT_CERT",
    "key_file": "CONSUL_CLIENT_KEY",
}
_SLOW_KINDS = frozenset({"denied", "misconfigured"})
_PORTS = {"http": 80, "https": 443}
# what Go's strconv.ParseBool takes, for Consul's tools are written in Go
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class SettingsError(ControlError):
    """A setting for Consul that cannot be used; the text names it."""

    code = "invalid"
    status = 422
    exit_code = 2
    blames_content = True


class ConsulError(ControlError):
    """Consul did not give an answer that can be used.

    Attributes:
        kind: `unreachable`, `timeout`, `denied`, `misconfigured`, `overloaded`, `failed` or `protocol`.
        detail: What happened, without secrets.
        retry_after_s: When to ask again; None if nobody said.
    """

    code = "consul"
    status = 502

    def __init__(self, kind: ErrorKind, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(kind, detail)
        self.kind: ErrorKind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def is_operators(self) -> bool:
        """Whether somebody has to change something before the same question can succeed."""
        return self.kind in _SLOW_KINDS

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """One agent, and the credentials for it. Files are read again whenever they change."""

    scheme: str = "http"
    """`http`, `https`, or `unix`."""
    host: str = "127.0.0.1"
    port: int = 8500
    socket: str = ""
    """The path of the agent's Unix socket, for the scheme `unix`."""
    token: str = field(default="", repr=False)
    """Only from the environment; a file is better."""
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    """None: the key is in `cert_file`."""
    verify: bool = True
    """Whether the agent's certificate must be valid."""
    from_environment: bool = field(default=False, compare=False)
    """Whether variables name the files, rather than lb.yaml."""

    def files(self) -> dict[str, Path]:
        """Return the files by their keys in lb.yaml."""
        return {key: path for key in _VARIABLES if (path := getattr(self, key)) is not None}

    def named(self, key: str) -> str:
        """Say where a file is named, by its key in lb.yaml or by its variable, and its absolute path."""
        where = _VARIABLES[key] if self.from_environment else f"consul.{key}"
        return f"{where} {getattr(self, key).absolute()}"

    def address(self) -> str:
        """Return the address in one normal form, without secrets."""
        if self.scheme == "unix":
            return f"unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def with_address(text: str) -> ConsulSettings:
    """Return settings for an address and nothing else.

    Args:
        text: `http://HOST:PORT`, `https://HOST:PORT`, `unix:///PATH`, or `HOST:PORT`, as Consul's tools take it.

    Raises:
        SettingsError: It is none of these.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme == "unix":
        if not rest.startswith("/"):
            raise SettingsError(f"Consul's address {text!r}: unix:// needs an absolute path")
        return ConsulSettings(scheme="unix", host="localhost", port=80, socket=rest)
    if scheme not in _PORTS:
        raise SettingsError(f"Consul's address {text!r}: the scheme is none of http, https, unix")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsError(f"Consul's address {text!r}: no HOST:PORT") from None
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise SettingsError(f"Consul's address {text!r}: only a scheme, a host and a port belong there")
    return ConsulSettings(scheme=scheme, host=host, port=port or (8500 if not separator else _PORTS[scheme]))


def settings_of(consul: Consul) -> ConsulSettings:
    """Return the agent and its credentials.

    Raises:
        SettingsError: The address cannot be used.
    """
    files: dict[str, Any] = {
        key: Path(text) for key in _VARIABLES if (text := getattr(consul, key)) is not None
    }
    return replace(with_address(consul.address), **files)


def settings_from_environment(environ: Mapping[str, str], *, base: Path) -> ConsulSettings:
    """Read the variables that Consul's own tools read.

    Args:
        environ: `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_SSL`, `CONSUL_HTTP_SSL_VERIFY`, `CONSUL_HTTP_TOKEN`,
            `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY`; the rest is ignored.
        base: What relative paths are relative to.

    Raises:
        SettingsError: One of them cannot be used.
    """
    found = with_address(environ.get("CONSUL_HTTP_ADDR") or DEFAULT_ADDRESS)
    scheme = found.scheme
    if scheme == "http" and _boolean(environ, "CONSUL_HTTP_SSL", default=False):
        scheme = "https"
    files: dict[str, Any] = {
        key: base / environ[variable] for key, variable in _VARIABLES.items() if environ.get(variable)
    }
    return replace(
        found,
        scheme=scheme,
        token=environ.get("CONSUL_HTTP_TOKEN", ""),
        verify=_boolean(environ, "CONSUL_HTTP_SSL_VERIFY", default=True),
        from_environment=True,
        **files,
    )


def _boolean(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name, "")
    if not text:
        return default
    if text not in _TRUE | _FALSE:
        raise SettingsError(f"{name}={text!r}: neither true nor false")
    return text in _TRUE
