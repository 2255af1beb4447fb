"""The studies of TLS: handshakes, messages and bulk of clients whose TLS ends here, and TLS that is passed through by its name."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Final, Literal

from tools.bench import parse
from tools.bench.build import compiled
from tools.bench.certificates import make_certificates
from tools.bench.child import Failed
from tools.bench.contenders import NAME, Running, launch, tls_name, work_directory
from tools.bench.loads import MACHINE_CPU, PROXY_CPU, RATE, LoadStudy, connects
from tools.bench.servers import SERVERS
from tools.bench.study import Metric, Sampler, costed

Mode = Literal["full", "resumed", "echo", "down", "up"]
"""Of tls_load.c."""
_BULK: Final = frozenset({"down", "up"})
_WARM_UP_S: Final = 0.1
_ANSWER_S: Final = 20.0
"""How much longer than asked for a load may take."""
_LATENCIES: Final = (Metric("p50_us", "p50", "µs", "less"), Metric("p99_us", "p99", "µs", "less"))
HANDSHAKE_METRICS: Final = (
    Metric("rate", "handshakes", "1/s", "more"),
    Metric("per_cpu_s", "for a second of the proxy's CPU", "handshakes", "more"),
    PROXY_CPU,
    MACHINE_CPU,
    *_LATENCIES,
)
MESSAGE_METRICS: Final = (
    RATE,
    Metric("per_cpu_s", "for a second of the proxy's CPU", "operations", "more"),
    PROXY_CPU,
    MACHINE_CPU,
    *_LATENCIES,
)
STREAM_METRICS: Final = (
    Metric("rate", "throughput", "GB/s", "more"),
    Metric("per_cpu_s", "for a second of the proxy's CPU", "GB", "more"),
    Metric("proxy_cpu", "CPU of the proxy", "s per GB", "less"),
    Metric("machine_cpu", "CPU of the machine", "s per GB", "less"),
)


@dataclass
class TlsStudy:
    """One load of tls_load.c on contenders that end TLS before a server without it."""

    name: str
    title: str
    note: str
    metrics: Sequence[Metric]
    contenders: Sequence[str]
    """Those without TLS; each is run as `tls_name` says."""
    mode: Mode
    key: str = "ecdsa"
    """One of KEYS."""
    connections: int = 16
    size: int = 16
    thorough: bool = True
    fresh: bool = False

    def open(self, stack: ExitStack) -> None:
        """Make the certificates, and start the backends."""
        compiled("tls_load")
        make_certificates()
        self._backends = SERVERS["stream" if self.mode in _BULK else "echo"](stack)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender before them."""
        running = launch(tls_name(name, self.key), self._backends, stack)
        return lambda seconds: self._sample(running, seconds)

    def _sample(self, running: Running, seconds: float) -> dict[str, float]:
        words = (self.connections, self.size, seconds, _WARM_UP_S, NAME)
        argv = [compiled("tls_load"), self.mode, running.address, *map(str, words)]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as load:
            try:
                if _of(load.stdout).readline() != "ready\n":
                    raise Failed(_of(load.stderr).read().strip())
                figures = costed(lambda s: self._figures(load, s), running.child)(seconds)
            finally:
                load.kill()
        if figures.get("proxy_cpu"):
            figures["per_cpu_s"] = 1 / figures["proxy_cpu"]
        return figures

    def _figures(self, load: subprocess.Popen[str], seconds: float) -> dict[str, float]:
        """Let it begin, and return what it has done."""
        try:
            output, complaint = load.communicate("begin\n", timeout=seconds + _ANSWER_S)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"tls_load took more than {error.timeout:g} s") from None
        if load.returncode != 0:
            raise Failed(f"tls_load failed: {complaint.strip()[-300:]}")
        figures = parse.tls_stream(output) if self.mode in _BULK else parse.load(output)
        if self.mode == "resumed" and figures["resumed"] < figures["operations"]:
            raise Failed(
                f"only {figures['resumed']:.0f} of {figures['operations']:.0f} sessions were resumed"
            )
        return figures


@dataclass
class RouteStudy(LoadStudy):
    """Short connections whose first bytes are a ClientHello; the backend sends them back, so that no cipher is in the figures."""

    def open(self, stack: ExitStack) -> None:
        """Start the backends, and make the ClientHello."""
        super().open(stack)
        file = work_directory(stack) / "hello"
        file.write_bytes(client_hello(NAME))
        self.load = connects(size=file.stat().st_size, payload=str(file))


def client_hello(name: str) -> bytes:
    """Return what a client of this machine's OpenSSL sends first to somebody of this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("a handshake with nobody is over")


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # noqa: S101 - all three are pipes
    return stream
