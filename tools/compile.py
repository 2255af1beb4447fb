"""Compile the connection path (dataplane/build.py, COMPILED), as far as it is not compiled already.

Cython makes C of each module and the C compiler an extension module of that. What was compiled from the same text by the same
tools before is taken again, module by module, so that after an edit only what it concerns is compiled. Without a
C compiler, Python's headers or Cython one line says so, and everything runs interpreted: that is no error.
A module that does not compile is one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))  # dataplane.build alone is loaded, which needs nothing that is not there yet

from dataplane import build  # noqa: E402 - see above

MANNER: Final = 2
"""Of compiling: another number makes all that was compiled be compiled again."""
KEPT: Final = 6
"""Folders that stay: branches, Pythons and edits between which one goes back and forth."""
ABANDONED_S: Final = 3600
UNFINISHED: Final = ".unfinished-"
PARTIAL: Final = "partial"
"""The folder of the others when one does not compile."""
MADE_FROM: Final = "made_from.json"
"""In each folder: of each module the digest of what it was made from."""
DIRECTIVES: Final = {
    "language_level": "3",
    "annotation_typing": False,  # annotations are for mypy; a number that C shall know is in a .pxd
    "nonecheck": True,  # None where an object was expected raises, as it does interpreted
    "emit_code_comments": False,
}
FLAGS: Final = ("-O2", "-DNDEBUG", "-fwrapv", "-fPIC", "-fvisibility=hidden", "-shared")
"""None that ties the result to this very processor."""
SANITIZED: Final = (
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g1",
)


class CompileError(Exception):
    """A module does not compile; the text is what the compiler says."""


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


def _include() -> str:
    return str(sysconfig.get_config_var("INCLUDEPY"))


def why_not() -> str | None:
    """Return what is missing to compile; None: nothing is."""
    if shutil.which(_compiler()[0]) is None:
        return "there is no C compiler"
    if not Path(_include(), "Python.h").exists():
        return "Python's headers are missing"
    if importlib.util.find_spec("Cython") is None:
        return "Cython is missing"
    return None


class Compiler:
    """Compiles modules with one set of flags.

    Args:
        sanitize: Whether the result checks its own use of memory while it runs.
    """

    def __init__(self, *, sanitize: bool) -> None:
        given = shlex.split(os.environ.get("CFLAGS", "")), shlex.split(os.environ.get("LDFLAGS", ""))
        self._flags = [*FLAGS, *(SANITIZED if sanitize else ()), *given[0]]
        self._linked_with = given[1]
        tools = (
            MANNER,
            version("cython"),
            DIRECTIVES,
            _compiler(),
            self._flags,
            self._linked_with,
            build.SUFFIX,
        )
        self._tools = json.dumps(tools)

    def digest(self, module: str) -> str:
        """Return a name for all that a module is made from: its files, the types that it knows, and the tools."""
        found = hashlib.sha256(self._tools.encode())
        for path in _made_from(module):
            found.update(f"\n{path.name}\n".encode())
            found.update(path.read_bytes())
        return found.hexdigest()

    def make(self, module: str, folder: Path) -> None:
        """Compile a module into a folder.

        Raises:
            CompileError: It cannot be.
        """
        text = next(build.sources(module)).relative_to(PROJECT)
        target = _file(folder, module)
        target.parent.mkdir(parents=True, exist_ok=True)
        in_c = target.with_suffix(".c")
        directives = [word for name, value in DIRECTIVES.items() for word in ("-X", f"{name}={value}")]
        translate = [
            sys.executable,
            "-m",
            "cython",
            *directives,
            "--module-name",
            module,
            "-o",
            str(in_c),
            str(text),
        ]
        _run(module, translate)
        includes = [f"-I{_include()}", f"-I{PROJECT / text.parent}"]
        _run(
            module, [*_compiler(), *self._flags, *includes, str(in_c), "-o", str(target), *self._linked_with]
        )
        in_c.unlink()


def _run(module: str, command: Sequence[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path[1:]))}
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CompileError(f"{module} does not compile:\n{shlex.join(command)}\n{done.stdout}{done.stderr}")


def _made_from(module: str) -> list[Path]:
    """Return the files that a compiled module depends on: of modules whose types it knows, the types."""
    files = list(build.sources(module))
    seen = {module}
    looked_at = 0
    while looked_at < len(files):
        text = files[looked_at].read_text()
        looked_at += 1
        for line in re.findall(r"^.*\bcimports?\b.*$", text, re.MULTILINE):
            for other in re.findall(r"\bdataplane(?:\.\w+)+", line):
                if other in build.COMPILED and other not in seen:
                    seen.add(other)
                    files += [path for path in build.sources(other) if path.suffix == ".pxd"]
    headers = {header for path in files for header in path.parent.glob("*.h")}
    return [*files, *sorted(headers)]


def _file(folder: Path, module: str) -> Path:
    *rooms, name = module.split(".")[1:]
    return folder.joinpath(*rooms, name + build.SUFFIX)


def _made(folder: Path) -> dict[str, str]:
    """Return what a folder's modules were made from; nothing if it is unfinished or not ours."""
    with contextlib.suppress(OSError, ValueError):
        made: dict[str, str] = json.loads((folder / MADE_FROM).read_text())
        return made
    return {}


def compile_all(root: Path, *, sanitize: bool = False) -> Path:
    """Have everything compiled in a folder of `root`, and return that.

    Raises:
        CompileError: A module does not compile.
    """
    compiler = Compiler(sanitize=sanitize)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=root) as scratch:
        folder = None
        while folder is None:
            folder = _attempt(compiler, root, Path(scratch))
    _forget_old(root)
    return folder


def _attempt(compiler: Compiler, root: Path, scratch: Path) -> Path | None:
    """Compile the sources as they are now; return None if they were edited meanwhile, for then who knows what was compiled."""
    folder = root / build.digest()
    wanted = {module: compiler.digest(module) for module in build.COMPILED}
    if _made(folder) == wanted:
        os.utime(folder)
        return folder
    unfinished = Path(tempfile.mkdtemp(dir=scratch))
    missing = _take_again(wanted, unfinished, (root, build.ROOT, scratch))
    if missing:
        print(f"compiling {len(missing)} modules of the connection path", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        largest_first = sorted(missing, key=lambda module: -next(build.sources(module)).stat().st_size)
        made = [pool.submit(compiler.make, module, unfinished) for module in largest_first]
    still = {
        module: digest
        for module, digest in wanted.items()
        if compiler.digest(module) == digest and _file(unfinished, module).exists()
    }
    (unfinished / MADE_FROM).write_text(json.dumps(still, indent=1))
    for error in filter(None, (each.exception() for each in made)):
        _put_in_place(unfinished, root / PARTIAL)  # the rest need not be compiled again
        raise error
    if still != wanted or root / build.digest() != folder:
        return None
    unfinished.chmod(0o755)
    _put_in_place(unfinished, folder)
    return folder


def _take_again(wanted: dict[str, str], folder: Path, roots: Sequence[Path]) -> list[str]:
    """Copy what was compiled before into `folder`, and return the modules that nobody has."""
    found = {}
    for former in (each for root in roots if root.is_dir() for each in root.iterdir()):
        found.update(dict.fromkeys(_made(former).items(), former))
    missing = []
    for module, digest in wanted.items():
        target = _file(folder, module)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(_file(found[module, digest], module), target)
        except (KeyError, FileNotFoundError):
            missing.append(module)
    return missing


def _put_in_place(unfinished: Path, folder: Path) -> None:
    """Give a folder its name; who was there before, with other tools, goes. Processes keep what they have loaded."""
    if folder.exists():
        with contextlib.suppress(FileNotFoundError):  # somebody else compiles, too
            folder.rename(unfinished / "former")
    with contextlib.suppress(OSError):  # the same: theirs is as good
        unfinished.rename(folder)
    shutil.rmtree(folder / "former", ignore_errors=True)


def _forget_old(root: Path) -> None:
    for unfinished in root.glob(f"{UNFINISHED}*"):
        if unfinished.stat().st_mtime < time.time() - ABANDONED_S:  # whoever made it was killed
            shutil.rmtree(unfinished, ignore_errors=True)
    folders = [(each.stat().st_mtime, each) for each in root.iterdir() if _made(each)]
    for _, folder in sorted(folders)[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Compile, or say why not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--into", type=Path, default=build.ROOT, metavar="FOLDER", help="default: where it is looked for"
    )
    parser.add_argument(
        "--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer"
    )
    options = parser.parse_args()
    reason = why_not()
    if reason is not None:
        print(f"the connection path is not compiled: {reason}; it runs interpreted", file=sys.stderr)
        return
    try:
        compile_all(options.into.resolve(), sanitize=options.sanitize)
    except CompileError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
