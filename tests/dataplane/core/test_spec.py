"""What the connection path reads of a configuration."""

from __future__ import annotations

from dataclasses import is_dataclass

import pytest

from dataplane.core import spec


@pytest.mark.parametrize("name", [name for name, part in vars(spec).items() if is_dataclass(part)])
def test_nobody_on_the_connection_path_changes_a_configuration(name: str) -> None:
    """Each part is frozen, compared by value, and has no room for anything else."""
    part = getattr(spec, name)
    parameters = part.__dataclass_params__
    assert (parameters.frozen, parameters.eq) == (True, True)
    assert part.__slots__ == tuple(part.__dataclass_fields__)
