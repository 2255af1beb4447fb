"""What the data plane's API answers."""

from __future__ import annotations

import subprocess
import sys


def test_who_answers_needs_no_library() -> None:
    """They are plain dictionaries, also where pydantic is never loaded, as in a worker."""
    code = "import sys, schemas.replies, schemas.status; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
