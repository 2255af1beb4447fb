"""The real programs that some tests run: found, started with a generated configuration, ended by id."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.ports import HeldPort
from tests.support.process import Program, answers
from tests.support.tls import Pair

PACKAGES: Final = {
    "bird": "bird2",
    "cc": "gcc and libc6-dev",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "consul": "consul (tools/get-consul)",
    "curl": "curl",
    "docker-compose": "docker-compose",
    "exabgp": "exabgp",
    "hadolint": "hadolint (tools/install-test-programs)",
    "haproxy": "haproxy",
    "iperf3": "iperf3",
    "keepalived": "keepalived",
    "mosquitto": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "nginx": "nginx",
    "openssl": "openssl",
    "initdb": "postgresql",
    "postgres": "postgresql",
    "psql": "postgresql-client",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "sslyze": "sslyze (tools/install-test-programs)",
    "systemd-analyze": "systemd",
}
"""Program to the Debian package that brings it."""

_ROOT = Path(__file__).resolve().parents[2]


def find(program: str) -> str | None:
    """Return the path of a program; also where root's PATH, Debian's PostgreSQL and our tools have it."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", str(_ROOT / ".tools/consul/usr/bin")]
    places += [str(_ROOT / f".tools/{tool}/bin") for tool in ("hadolint", "sslyze")]
    # newest version first
    places += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which(program, path=os.pathsep.join(places))


def may_be_missing(program: str) -> bool:
    """Tell whether CI has to live without it: tools/install-test-programs tried, and the mirror has none."""
    return (_ROOT / f".tools/{program}-cannot-be-had").exists()


def require(program: str) -> str:
    """Return the path of a program that `@pytest.mark.needs` has asked for already."""
    path = find(program)
    assert path, f"{program} is missing: mark the test with @pytest.mark.needs({program!r})"
    return path


class _Listening(Program):
    """A program with one port that is ready when it accepts there."""

    def __init__(self, argv: Sequence[str], *, user: str | None = None) -> None:
        super().__init__(argv, user=user)
        self._held = HeldPort()
        self.port = self._held.port
        self.address = self._held.address

    def ready(self) -> bool:
        return answers(self.address)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._held.release()


class Redis(_Listening):
    """A Redis server that keeps nothing on disk.

    Args:
        arguments: More of its options, as `["--maxclients", "10"]`.
        tls: Speak nothing but TLS, with this pair.
        client_ca: With `tls`: an authority, of which clients must have a certificate; None: they need none.
    """

    def __init__(
        self, arguments: Sequence[str] = (), *, tls: Pair | None = None, client_ca: Path | None = None
    ) -> None:
        super().__init__([])
        port = ["--port", str(self.port)]
        if tls is not None:
            port = ["--port", "0", "--tls-port", str(self.port)]
            port += ["--tls-cert-file", str(tls.cert), "--tls-key-file", str(tls.key)]
            # one it must have, or it does not start; of whom nothing is wanted, it is never used
            port += ["--tls-ca-cert-file", str(client_ca or tls.cert)]
            port += ["--tls-auth-clients", "no" if client_ca is None else "yes"]
        self.argv = [
            *(require("redis-server"), "--bind", "127.0.0.1", *port),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", *arguments),
        ]


class Mosquitto(_Listening):
    """An MQTT broker that takes anybody and keeps nothing.

    Args:
        lines: More of its listener's settings, as `["certfile /x.pem"]`.
    """

    def __init__(self, lines: Sequence[str] = ()) -> None:
        super().__init__([])
        configuration = self.directory / "mosquitto.conf"
        listener = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", *lines]
        # as root it would become another user, who may not read what tests make
        user = ["user root"] if os.geteuid() == 0 else []
        configuration.write_text("\n".join([*user, "persistence false", "log_dest stderr", *listener]) + "\n")
        self.argv = [require("mosquitto"), "-c", str(configuration)]


class Haproxy(_Listening):
    """HAProxy in TCP mode, in front of `backends`.

    Args:
        backends: Addresses, balanced round-robin without checks.
        server_options: What follows each server's address, as `send-proxy-v2`.
        bind_options: What follows the listener's address, as `accept-proxy`.
        lines: What else it shall do, as `mode http`.
    """

    def __init__(
        self,
        backends: Sequence[str],
        *,
        server_options: str = "",
        bind_options: str = "",
        lines: Sequence[str] = (),
    ) -> None:
        super().__init__([])
        text = [
            "global",
            "    maxconn 4000",
            "defaults",
            "    mode tcp",
            "    timeout connect 5s",
            "    timeout client 60s",
            "    timeout server 60s",
            "listen test",
            f"    bind {self.address} {bind_options}",
            *(f"    {line}" for line in lines),
            *(f"    server s{i} {address} {server_options}" for i, address in enumerate(backends)),
        ]
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text("\n".join(text) + "\n")
        self.argv = [require("haproxy"), "-db", "-f", str(configuration)]


class Nginx(_Listening):
    """nginx as an HTTP server, in the foreground with one worker, as this user.

    Args:
        server: What stands in its `server {}` behind the `listen`, as `return 200 "one";`.
        listen_options: What follows the address, as `proxy_protocol`.
    """

    def __init__(self, server: str, *, listen_options: str = "") -> None:
        super().__init__([])
        temp = self.directory
        configuration = temp / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # else the worker cannot enter our directory
        configuration.write_text(
            f"""
            {user}
            daemon off;
            worker_processes 1;
            error_log stderr;
            pid {temp}/nginx.pid;
            events {{ worker_connections 1024; }}
            http {{
                access_log off;
                client_body_temp_path {temp}/body;
                proxy_temp_path {temp}/proxy;
                fastcgi_temp_path {temp}/fastcgi;
                uwsgi_temp_path {temp}/uwsgi;
                scgi_temp_path {temp}/scgi;
                server {{
                    listen {self.address} {listen_options};
                    {server}
                }}
            }}
            """
        )
        self.argv = [require("nginx"), "-p", str(temp), "-e", "stderr", "-c", str(configuration)]


class Postgres(_Listening):
    """A PostgreSQL cluster of its own: no password for `postgres`, nothing synced to disk.

    As root, it runs as another user, since it refuses to run as root.

    Args:
        settings: More of its settings, as `{"max_connections": "20"}`.
        tls: A pair, of which it takes a copy: it takes TLS, and what is plain as well.
    """

    def __init__(self, settings: dict[str, str] | None = None, *, tls: Pair | None = None) -> None:
        super().__init__([], user=_unprivileged())
        self._stop_signal = signal.SIGINT  # ends sessions, and then itself
        self._data = self.directory / "data"
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            **({} if tls is None else self._take(tls)),
            **(settings or {}),
        }
        set_to = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        self.argv = [require("postgres"), "-D", str(self._data), *set_to]

    def _take(self, tls: Pair) -> dict[str, str]:
        """Copy a pair to where the server's user may read it, and return the settings that name it."""
        cert, key = self.directory / "server.pem", self.directory / "server.key"
        tls.put(cert, key)
        if self._user is not None:
            shutil.chown(key, self._user)
        return {"ssl": "on", "ssl_cert_file": str(cert), "ssl_key_file": str(key)}

    def _spawn(self) -> None:
        if not self._data.exists():
            initdb = [require("initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust", "-N"]
            subprocess.run(
                [*initdb, "--encoding=UTF8", "--locale=C"],
                check=True,
                capture_output=True,
                env=self._environment,
                cwd=self.directory,
                user=self._user,
                extra_groups=None if self._user is None else [],
            )
        super()._spawn()

    def ready(self) -> bool:
        return "ready to accept connections" in self.output and super().ready()


def _unprivileged() -> str | None:
    """Return who runs what refuses to be root; None if we are not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
