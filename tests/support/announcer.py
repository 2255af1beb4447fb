"""What ExaBGP runs on a node of a test: announces a prefix while the node's data planes say that they are ready."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.support.dataplane import unix_request


def main() -> None:
    """Ask five times a second, and tell ExaBGP what changed."""
    runtime = Path(os.environ["LB_RUNTIME_DIR"])
    announced = False
    while True:
        planes = list(runtime.glob("dataplane-*.sock"))
        try:
            ready = bool(planes) and all(unix_request(plane, "GET", "/readyz")[0] == 200 for plane in planes)
        except OSError:
            ready = False
        if ready != announced:
            announced = ready
            print(f"{'announce' if ready else 'withdraw'} route {sys.argv[1]} next-hop self", flush=True)  # noqa: T201
        time.sleep(0.2)


if __name__ == "__main__":
    main()
