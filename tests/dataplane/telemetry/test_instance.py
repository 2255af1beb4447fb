"""The id that a process draws."""

from __future__ import annotations

import os

from dataplane.telemetry.instance import draw_instance


def test_the_id_is_made_of_what_is_drawn():
    """16 hexadecimal digits, all of them drawn; two draws are two ids."""
    assert draw_instance(lambda count: bytes(range(count))) == "0001020304050607"
    assert draw_instance(os.urandom) != draw_instance(os.urandom)
