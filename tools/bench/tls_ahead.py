"""What a TLS handshake with a backend that is done ahead saves a client: time to first byte, backend 10 ms away.

`python -m tools.bench.tls_ahead [CONNECTIONS]`, as root. Client and data plane share a network namespace, the backend is in
another, and between them each packet waits for 5 ms (delay.c). One after the other, clients connect by plain TCP, send 16
bytes and wait for the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tools.bench.build import compiled
from tools.bench.child import within
from tools.bench.distance import ONE_WAY_MS, wire

FAR: Final = "10.77.0.2"
_PLAIN, _TLS = 7000, 7443
_SERVICES: Final = {
    "plain, pool off": (7101, _PLAIN, "off"),
    "plain, preconnect": (7102, _PLAIN, "preconnect"),
    "TLS, pool off": (7103, _TLS, "off"),
    "TLS, preconnect": (7104, _TLS, "preconnect"),
}
_PAUSE_S: Final = 0.02
_WARM_UP: Final = 20


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    writer.close()


async def _serve(cert: str, key: str) -> None:
    """Be the backend."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    await asyncio.start_server(_echo, FAR, _PLAIN)
    await asyncio.start_server(_echo, FAR, _TLS, ssl=context)
    print("serving", flush=True)
    await asyncio.Event().wait()


def _first_byte_ms(port: int) -> float:
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"sixteen bytes..\n")
        client.recv(16)
        return (time.perf_counter() - began) * 1000


def _clients(connections: int) -> None:
    """Be the clients, and print what they have waited for."""
    for name, (port, _, _) in _SERVICES.items():
        times = []
        for number in range(connections + _WARM_UP):
            took = _first_byte_ms(port)
            if number >= _WARM_UP:
                times.append(took)
            time.sleep(_PAUSE_S)
        times.sort()
        row = {"p50_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)]}
        print(f"{name:20} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f}", flush=True)


def _certificate(folder: Path) -> tuple[str, str]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    subject = ("-subj", "/CN=backend", "-addext", f"subjectAltName=IP:{FAR}")
    subprocess.run(
        ["openssl", *made, *subject, "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return str(cert), str(key)


def _started(stack: ExitStack, argv: list[str], word: str, **options: dict[str, str]) -> None:
    """Start a program, and wait until it says a word."""
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | options.get("env", {}),
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    for line in process.stdout:
        if word in line:
            return
    raise SystemExit(f"{argv[0]} ended")


def main(connections: int) -> None:
    """Measure all four."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cert, key = _certificate(folder)
        near, far = wire(stack)
        myself = [sys.executable, "-m", "tools.bench.tls_ahead"]
        _started(stack, within(far, [*myself, "serve", cert, key]), "serving")
        services = {
            name.replace(", ", "-").replace(" ", "-").lower(): {
                "listen": f"127.0.0.1:{port}",
                "backends": [f"{FAR}:{backend}"],
                "health": {"active": {"type": "none"}},
                "pool": {"mode": mode, "min_idle": 2} if mode != "off" else {"mode": "off"},
                **({"backend_tls": {"ca": cert}} if backend == _TLS else {}),
            }
            for name, (port, backend, mode) in _SERVICES.items()
        }
        configuration = folder / "lb.yaml"
        configuration.write_text(json.dumps({"version": 1, "services": services}))
        program = Path(sys.executable).with_name("lb-dataplane")
        directories = {"LB_RUNTIME_DIR": str(folder / "run"), "LB_STATE_DIR": str(folder / "state")}
        _started(
            stack, within(near, [str(program), "--config", str(configuration)]), '"started"', env=directories
        )
        print(
            f"time to first byte, backend {2 * ONE_WAY_MS:g} ms away, {connections} connections: p50, p99 in ms"
        )
        subprocess.run(within(near, [*myself, "clients", str(connections)]), check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", cert, key]:
            asyncio.run(_serve(cert, key))
        case ["clients", count]:
            _clients(int(count))
        case _:
            compiled("delay")
            main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
