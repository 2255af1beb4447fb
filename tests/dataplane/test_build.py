"""Which form of the connection path runs, and when what was compiled is not taken."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dataplane import build

ROOT = Path(build.__file__).parents[1]


class Installed:
    """A copy of the package, in which as many copies of `build` can be loaded as one likes."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / "dataplane"
        for source in (
            Path(build.__file__),
            *(path for one in build.COMPILED for path in build.sources(one)),
        ):
            target = self.package / source.relative_to(ROOT / "dataplane")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def load(self) -> ModuleType:
        """Return `build`, as it is in a process that starts now."""
        spec = importlib.util.spec_from_file_location("build_again", self.package / "build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def compile(self, root: str = "_compiled") -> Path:
        """Have a folder for the sources as they are now, and return it."""
        folder = self.package / root / self.load().digest()
        (folder / "net").mkdir(parents=True)
        (folder / "net" / f"leg{build.SUFFIX}").touch()
        return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """One that has not been compiled yet, and an environment that says nothing."""
    for name in ("LIVELB_INTERPRETED", "LIVELB_COMPILED"):
        monkeypatch.delenv(name, raising=False)
    return Installed(tmp_path)


@pytest.mark.parametrize("module", build.COMPILED)
def test_the_word_is_true(module: str) -> None:
    """Each module of the connection path is what `BUILD` says of them all."""
    found = importlib.import_module(module).__file__
    assert found is not None
    assert found.endswith(build.SUFFIX if build.BUILD == "compiled" else ".py")


def test_each_module_stands_there_once() -> None:
    """A module that has gone or stands there twice is a mistake in the list."""
    assert sorted(set(build.COMPILED)) == list(build.COMPILED)
    assert [one for one in build.COMPILED if not next(build.sources(one)).is_file()] == []


def test_types_belong_to_a_module_that_is_compiled() -> None:
    """What a compiler shall know stands beside a module that it is given."""
    types = {path for one in build.COMPILED for path in build.sources(one) if path.suffix == ".pxd"}
    assert {path for path in (ROOT / "dataplane").rglob("*.pxd") if path.name != "__init__.pxd"} == types


def test_what_was_compiled_is_taken(installed: Installed) -> None:
    """Its folder comes before the package's own."""
    assert installed.load().BUILD == "interpreted"
    assert installed.load().folders("dataplane.net") == []
    folder = installed.compile()
    again = installed.load()
    assert (again.BUILD, again.stale()) == ("compiled", False)
    assert again.folders("dataplane.core.balance") == [str(folder / "core/balance")]


@pytest.mark.parametrize("name", ["net/leg.py", "net/leg.pxd", "core/recent.h"])
def test_after_an_edit_it_is_not(installed: Installed, name: str) -> None:
    """A text, types that come or a header: it runs interpreted and knows why; edited back, it is compiled again."""
    installed.compile()
    path = installed.package / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + b"\n")
    edited = installed.load()
    assert (edited.BUILD, edited.folders("dataplane.net"), edited.stale()) == ("interpreted", [], True)
    if before is None:
        path.unlink()
    else:
        path.write_bytes(before)
    assert installed.load().BUILD == "compiled"


def test_never_compiled_is_not_stale(installed: Installed) -> None:
    """Where nothing was ever compiled there is nothing to say; what is unfinished counts for nothing."""
    assert not installed.load().stale()
    (installed.package / "_compiled/.unfinished").mkdir(parents=True)
    assert not installed.load().stale()


@pytest.mark.parametrize(("value", "expected"), [("1", "interpreted"), ("0", "compiled"), ("", "compiled")])
def test_the_environment_decides(
    installed: Installed, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIVELB_INTERPRETED=1 leaves what is compiled alone, and that is nothing to complain of."""
    installed.compile()
    monkeypatch.setenv("LIVELB_INTERPRETED", value)
    assert (installed.load().BUILD, installed.load().stale()) == (expected, False)


def test_another_place(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """LIVELB_COMPILED names where modules with other flags are."""
    folder = installed.compile("sanitized")
    assert installed.load().BUILD == "interpreted"
    monkeypatch.setenv("LIVELB_COMPILED", str(folder.parent))
    assert installed.load().BUILD == "compiled"
    assert installed.load().folders("dataplane.net") == [str(folder / "net")]


def test_a_process_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is told to run interpreted imports no extension module of ours."""
    monkeypatch.setenv("LIVELB_INTERPRETED", "1")
    said = "import dataplane.net.service as s, dataplane.net.leg as l; print(s.__file__, l.__file__)"
    done = subprocess.run([sys.executable, "-c", said], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [str(ROOT / "dataplane/net/service.py"), str(ROOT / "dataplane/net/leg.py")]


def test_an_edit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is compiled is of other text, a data plane says in one line that it runs interpreted."""
    for name, value in (("LIVELB_INTERPRETED", ""), ("LIVELB_COMPILED", str(tmp_path))):
        monkeypatch.setenv(name, value)
    module = tmp_path / "0123456789abcdef/net" / f"leg{build.SUFFIX}"
    module.parent.mkdir(parents=True)
    module.touch()
    started = [sys.executable, "-c", "import sys; from dataplane.start import main; main()", "--version"]
    done = subprocess.run(started, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith(", interpreted\n")
    said = "lb-dataplane: interpreted, since it was edited after it was compiled; tools/setup compiles it\n"
    assert done.stderr == said
    module.unlink()
    done = subprocess.run(started, check=True, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.endswith(", interpreted\n"), done.stderr) == (True, "")
