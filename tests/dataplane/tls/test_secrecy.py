"""A process with keys leaves no core dump: asked of processes of their own, for it cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tls import CertificateAuthority

ROOT = Path(__file__).resolve().parents[3]
ASK = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
LOAD = """
import asyncio, sys
from dataplane.core.spec import CertificateSpec, TlsSpec
from dataplane.node.specs import service_spec
from dataplane.node.tls import load_tls
from schemas.snapshot import Service
said = {"listen": ":1"} | ({"tls": {"certificates": [{"cert": sys.argv[1], "key": sys.argv[2]}]}} if sys.argv[3:] else {})
asyncio.run(load_tls([service_spec("web", Service.model_validate(said))], {}))
"""


@pytest.mark.parametrize(("more", "dumpable"), [(("tls",), "0"), ((), "1")], ids=["with a key", "without"])
def test_a_process_with_keys_cannot_be_dumped(tmp_path, more, dumpable):
    """And only such a one: without TLS a core dump is of use, and nobody's secret."""
    pair = CertificateAuthority(tmp_path).issue("a.example")
    done = subprocess.run(
        [sys.executable, "-c", LOAD + ASK, str(pair.cert), str(pair.key), *more],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == dumpable


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_pair_is_loaded_where_nobody_may_look(tmp_path):
    """Of memory, by a path in /proc: which is not only root's for the process itself."""
    pair = CertificateAuthority(tmp_path).issue("a.example")
    script = f"""
import os, ssl
from dataplane.tls.files import Pair
from dataplane.tls.secrecy import keep_memory_secret
from schemas.x509 import first_certificate
content = [open(path, "rb").read() for path in {[str(pair.cert), str(pair.key)]!r}]
pair = Pair(first_certificate(content[0]), *content, False)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
keep_memory_secret()
pair.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
print("loaded")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.strip() == "loaded", done.stderr
