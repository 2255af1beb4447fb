"""Who is measured: each proxy with its program, its configuration and how it is started."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Final

from tests.support.ports import HeldPort
from tools.bench.build import CACHE, COMPILED, HERE, INTERPRETED, ROOT, compiled, form, installed, ours
from tools.bench.child import Child, Failed, within

_ROUND_ROBIN_LIMIT: Final = 4095
"""HAProxy's round robin takes so many servers (configuration manual, `balance roundrobin`); `leastconn` takes any
number, and changes a weight in microseconds where `random` needs milliseconds."""
_MOST_FILES: Final = 65_536
_MODULES: Final = Path("/usr/lib/nginx/modules")
NAME: Final = "bench.example.com"
"""What clients over TLS ask for."""
CERTIFICATES: Final = CACHE / "certificates"
KEYS: Final = ("ecdsa", "rsa")
"""Kinds of keys; CERTIFICATES has a file of each with certificate and key, once certificates.py has made them."""


@dataclass(frozen=True)
class Contender:
    """One way to get from a client to a backend.

    In `command` and the templates, `$program`, `$directory`, `$config`, `$listen`, `$host`, `$port` and the keys of
    `more` are filled in; `$backends` is `backend_line` for each backend, itself with `$index`, `$host`, `$port`.
    """

    title: str
    program: str = ""
    """What must be installed; "" for none, "ours" and "relay" for our own."""
    command: tuple[str, ...] = ()
    config: str = ""
    """A file of peers/; "" if the program takes none."""
    further: str = ""
    """A second file of peers/, which the first one names."""
    backend_line: str = ""
    service_lines: str = ""
    """What stands in the configuration for each further service, with `$index` and `$port`."""
    more: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


_IDLE_FRONTEND: Final = """
listen idle$index
    bind 127.0.0.1:$port
    server b0 127.0.0.1:9 weight 1"""
"""Port 9 (discard): nobody comes to these services, so nobody asks for it."""
_IDLE_SERVICE: Final = """
  idle$index:
    listen: 127.0.0.1:$port
    pool: {mode: off}
    health: {active: {type: none}}
    backends: [{id: b0, address: "127.0.0.1:9"}]"""
_HAPROXY: Final = ("$program", "-db", "-f", "$config")
_SERVER: Final = "    server b$index $host:$port weight 1"
_OURS: Final = (
    "$program", "--config", "$config", "--name", "bench",
    "--runtime-dir", "$directory", "--state-dir", "$directory/state",
)  # fmt: skip
_ID_LINE: Final = '      - {id: b$index, address: "$host:$port"}'


INTERPRETED_SUFFIX: Final = "-interpreted"


def _ours(title: str, pool: str, *options: str, mode: str = "rr") -> Contender:
    return Contender(
        title,
        "ours",
        (*_OURS, *options),
        "livelb.yaml",
        backend_line=_ID_LINE,
        service_lines=_IDLE_SERVICE,
        more={"pool": pool, "mode": mode},
    )


def _haproxy(title: str, *, threads: int = 1, splice: str = "", **more: str) -> Contender:
    return Contender(
        title,
        "haproxy",
        _HAPROXY,
        "haproxy.cfg",
        backend_line=_SERVER,
        service_lines=_IDLE_FRONTEND,
        more={"splice": splice, "threads": str(threads), **more},
    )


def _collected(title: str, how: str) -> Contender:
    """Return our data plane in the watch of collected.py."""
    command = (sys.executable, "-m", "tools.bench.collected", "$directory/pauses.json", how, *_OURS[1:])
    return replace(_ours(title, "off"), command=command, environment={"PYTHONPATH": str(ROOT)})


_GIVEN: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        "direct": Contender("no proxy"),
        "relay": Contender("C relay, the floor", "relay", ("$program", "$listen", "$all_backends")),
        "haproxy": _haproxy("HAProxy"),
        "haproxy-splice": _haproxy("HAProxy, splice", splice="option splice-auto"),
        "haproxy-2": _haproxy("HAProxy, 2 threads", threads=2),
        "haproxy-sticky": _haproxy(
            "HAProxy, by source address", balance="source\n    hash-type consistent"
        ),
        "nginx": Contender(
            "nginx stream",
            "nginx",
            ("$program", "-p", "$directory", "-e", "$directory/error.log", "-c", "$config"),
            "nginx-stream.conf",
            backend_line="        server $host:$port;",
            more={"modules": str(_MODULES)},
        ),
        "envoy": Contender(
            "Envoy",
            "envoy",
            (
                "$program", "-c", "$config", "--concurrency", "1", "--disable-hot-restart", "--log-level", "critical",
            ),
            "envoy.yaml",
            backend_line="              - endpoint:"
            " {address: {socket_address: {address: $host, port_value: $port}}}",
        ),
        "traefik": Contender(
            "Traefik",
            "traefik",
            ("$program", "--configfile=$config"),
            "traefik.yaml",
            "traefik-routes.yaml",
            '          - address: "$host:$port"',
            environment={"GOMAXPROCS": "1"},
        ),
        "ours-off": _ours("ours, pool off", "off"),
        "ours-preconnect": _ours("ours, preconnect", "preconnect"),
        "ours-reuse": _ours("ours, reuse", "reuse"),
        "ours-log": _ours("ours, preconnect, access log", "preconnect", "--access-log", "$directory/access.log"),
        "ours-2": _ours("ours, preconnect, 2 workers", "preconnect", "--workers", "2"),
        "ours-4": _ours("ours, preconnect, 4 workers", "preconnect", "--workers", "4"),
        "ours-off-2": _ours("ours, pool off, 2 workers", "off", "--workers", "2"),
        "ours-sticky-2": _ours("ours, sticky, 2 workers", "off", "--workers", "2", mode="sticky"),
        "ours-gc-tuned": _collected("ours, collector as it runs", "tuned"),
        "ours-gc-unfrozen": _collected("ours, without gc.freeze", "unfrozen"),
        "ours-gc-default": _collected("ours, Python's defaults", "default"),
    }
)  # fmt: skip


def _over_tls(name: str, key: str) -> tuple[str, Contender]:
    """Return what is called `tls_name(name, key)`: one that ends TLS and is otherwise as it is without."""
    contender = _GIVEN[name]
    stem, _, ending = contender.config.replace("-stream", "").rpartition(".")
    more = {**contender.more, "certificate": key}
    return tls_name(name, key), replace(contender, config=f"{stem}-tls.{ending}", more=more)


def _by_name(name: str) -> tuple[str, Contender]:
    """Return what is called `NAME-route`: one that passes TLS through to where the ClientHello's name belongs."""
    contender = _GIVEN[name]
    stem, _, ending = contender.config.replace("-stream", "").rpartition(".")
    title = f"{contender.title}, by name"
    return f"{name}-route", replace(contender, title=title, config=f"{stem}-route.{ending}")


def tls_name(name: str, key: str) -> str:
    """Return the name of the contender that does the same as another one, but ends TLS with a key of KEYS."""
    plain = name.removesuffix(INTERPRETED_SUFFIX)
    return f"{plain}-{key}{name.removeprefix(plain)}"


def _interpreted(contender: Contender) -> Contender:
    """Return one of ours with its interpreted form."""
    return replace(
        contender,
        title=f"{contender.title}, interpreted",
        environment={**contender.environment, **INTERPRETED},
    )


_WITH_TLS: Final = ("haproxy", "nginx", "envoy", "ours-off")
_ALL: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        **_GIVEN,
        **dict(_over_tls(name, key) for name in _WITH_TLS for key in KEYS),
        **dict(_by_name(name) for name in _WITH_TLS),
    }
)
CONTENDERS: Final[Mapping[str, Contender]] = MappingProxyType(
    {
        **_ALL,
        **{
            name + INTERPRETED_SUFFIX: _interpreted(contender)
            for name, contender in _ALL.items()
            if contender.program == "ours"
        },
    }
)
"""Ours runs as it is installed here, which is the compiled form, if there is one; with the suffix it runs interpreted."""


def title_of(name: str) -> str:
    """Return what a contender is called; what is none has its title for a name."""
    return CONTENDERS[name].title if name in CONTENDERS else name


def form_of(name: str) -> str | None:
    """Return which form of ours a contender runs here, `compiled` or `interpreted`; None for all others.

    Raises:
        Failed: Ours does not start.
    """
    if name not in CONTENDERS or CONTENDERS[name].program != "ours":
        return None
    return form(interpreted=name.endswith(INTERPRETED_SUFFIX))


@dataclass(frozen=True)
class Running:
    """A contender at work."""

    address: str
    child: Child | None
    """None if there is no process between client and backend."""
    directory: Path


def work_directory(stack: ExitStack) -> Path:
    """Return a new short-named directory that goes when `stack` is closed."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb-bench-")))


def free_port(stack: ExitStack) -> int:
    """Return a port that is held for us until `stack` is closed, and on which a server may listen."""
    return stack.enter_context(HeldPort()).port


def render(template: str, lines: str, backends: Sequence[str], values: Mapping[str, str]) -> str:
    """Fill in a file of peers/.

    Args:
        template: Its name.
        lines: What stands in it for each backend.
        backends: `host:port` of each.
        values: Further placeholders.

    Raises:
        KeyError: A placeholder of the file has no value.
    """
    filled = []
    line = Template(lines)
    for index, backend in enumerate(backends):
        host, _, port = backend.rpartition(":")
        filled.append(line.substitute(index=index, host=host, port=port))
    text = (HERE / "peers" / template).read_text()
    return Template(text).substitute(values, backends="\n".join(filled))


def _program(contender: Contender) -> str:
    if contender.program == "relay":
        return compiled("relay")
    if contender.program == "ours":
        if contender.environment.items() >= INTERPRETED.items() and form(interpreted=True) == COMPILED:
            raise Failed("it does not run interpreted")
        return ours()
    if contender.program == "nginx" and not (_MODULES / "ngx_stream_module.so").exists():
        raise Failed("nginx's stream module (libnginx-mod-stream) is not installed")
    return installed(contender.program)


def files() -> int:
    """Return how many files a process may open here: what all contenders may use, whatever their defaults."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(hard, _MOST_FILES) if hard > 0 else _MOST_FILES


def begin(
    name: str,
    backends: Sequence[str],
    stack: ExitStack,
    *,
    listen: str | None = None,
    namespace: int | str | None = None,
    further_ports: Sequence[int] = (),
) -> Running:
    """Start a contender before some backends.

    Args:
        name: A key of CONTENDERS.
        backends: `host:port` of each.
        stack: Ends it.
        listen: Where; None for a free port.
        namespace: The network namespace in which it runs, by its name or a process in it; None for ours.
        further_ports: On each of them it has a service that nobody uses.

    Raises:
        Failed: It is not installed.
    """
    contender = CONTENDERS[name]
    directory = work_directory(stack)
    if not contender.command:
        return Running(backends[0], None, directory)
    if listen is None:
        listen = f"127.0.0.1:{free_port(stack)}"
    host, _, port = listen.rpartition(":")
    values = {
        "program": _program(contender),
        "directory": str(directory),
        "config": str(directory / contender.config),
        "listen": listen,
        "host": host,
        "port": port,
        "files": str(files()),
        # two files each, with splice two more for every fourth, and some for the rest
        "connections": str(files() * 3 // 8 if contender.more.get("splice") else files() * 12 // 25),
        "services": "".join(
            Template(contender.service_lines).substitute(index=index, port=port)
            for index, port in enumerate(further_ports)
        ),
        "certificates": str(CERTIFICATES),
        "name": NAME,
        "balance": "roundrobin" if len(backends) <= _ROUND_ROBIN_LIMIT else "leastconn",
        **contender.more,
    }
    for file in filter(None, (contender.config, contender.further)):
        (directory / file).write_text(render(file, contender.backend_line, backends, values))
    argv: list[str] = []
    for word in contender.command:
        argv += backends if word == "$all_backends" else [Template(word).substitute(values)]
    child = Child(within(namespace, argv), directory, environment=contender.environment)
    stack.enter_context(child)
    return Running(listen, child, directory)


def launch(
    name: str,
    backends: Sequence[str],
    stack: ExitStack,
    *,
    listen: str | None = None,
    namespace: int | str | None = None,
    further_ports: Sequence[int] = (),
) -> Running:
    """Start a contender as `begin` does, and wait until it listens.

    Raises:
        Failed: It is not installed or does not start.
    """
    running = begin(name, backends, stack, listen=listen, namespace=namespace, further_ports=further_ports)
    if running.child is not None:
        running.child.wait_listening(int(running.address.rpartition(":")[2]))
    return running
