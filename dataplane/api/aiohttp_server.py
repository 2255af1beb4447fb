"""Loads of aiohttp what serves, without the client that `import aiohttp` loads as well.

Nobody asks for that here, and it is not small: 3 MiB and 80 ms of CPU, for which among others it reads the system's authorities.
`aiohttp.web` needs nothing of it, but is in the same package. So the package is there and what its `__init__` would do is not
done, until somebody looks for a name in it that is not there; or at once, if a version of aiohttp cannot do without.
"""

from __future__ import annotations

import mimetypes
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from typing import Any, Final

_PACKAGE: Final = "aiohttp"
_SERVER: Final = "aiohttp.web"


def load() -> None:
    """Have `aiohttp.web` loaded."""
    spec = find_spec(_PACKAGE)
    if _PACKAGE not in sys.modules and spec is not None and spec.loader is not None:
        package, loader = module_from_spec(spec), spec.loader
        names: dict[str, Any] = vars(package)

        def missing(name: str) -> Any:
            del names["__getattr__"]
            loader.exec_module(package)
            return getattr(package, name)

        mimetypes.knownfiles.clear()  # of this machine's kinds of files, for files to be served: none is (0.3 MiB)
        names["__version__"] = version(_PACKAGE)
        sys.modules[_PACKAGE] = package
        try:
            import_module(_SERVER)
        except ImportError:
            loader.exec_module(package)
        else:
            names["__getattr__"] = missing
    import_module(_SERVER)
