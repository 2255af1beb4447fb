"""What hatchling asks when it makes a wheel: the connection path compiled, where that can be.

A wheel with compiled modules is for one Python on one machine, and its tag says so; without them it is a pure one. With
LIVELB_INTERPRETED=1, or without a compiler, it is pure. An editable installation gets none: a checkout compiles into itself
(tools/setup).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledWheel(BuildHookInterface[Any]):
    """Adds the extension modules to a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say in `build_data` what goes into the wheel."""
        if version == "editable" or os.environ.get("LIVELB_INTERPRETED", "0") not in {"", "0"}:
            return
        compiling = _load(Path(self.root, "tools", "compile.py"))
        reason = compiling.why_not()
        if reason is not None:
            self.app.display_warning(
                f"the connection path is not compiled: {reason}; it will run interpreted"
            )
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="livelb-compiled-")
        root = Path(self._scratch.name)
        folder = compiling.compile_all(root)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {
            str(path): f"dataplane/_compiled/{path.relative_to(root)}"
            for path in sorted(folder.rglob(f"*{compiling.build.SUFFIX}"))
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear away what was compiled: it is in the wheel now."""
        del version, build_data, artifact_path
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def _load(path: Path) -> Any:
    """Load a module that is in no package."""
    spec = importlib.util.spec_from_file_location("livelb_compile", path)
    assert spec is not None  # noqa: S101 - it ends with .py
    assert spec.loader is not None  # noqa: S101 - the same
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
