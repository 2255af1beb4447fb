"""`make dist`: a wheel for this machine and a pure one, each installed into an environment of its own, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataplane import build
from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort

ROOT = Path(__file__).resolve().parents[2]
HEADERS = Path(str(sysconfig.get_config_var("INCLUDEPY")), "Python.h")

pytestmark = [
    pytest.mark.needs("cc"),
    pytest.mark.skipif(
        not HEADERS.exists() and os.environ.get("CI") != "true", reason="Python's headers are missing"
    ),
    pytest.mark.timeout(600),  # compiles everything, if this checkout has not yet
]


def run(argv: Sequence[object], **environment: str) -> str:
    """Run a command in a clean environment, and return its output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LIVELB_", "MAKE"))}
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=ROOT,
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of `make dist` make, in a folder of their own."""
    folder = tmp_path_factory.mktemp("dist")
    hatchling = Path(sysconfig.get_path("scripts")) / "hatchling"
    run([hatchling, "build", "-d", folder])
    run([hatchling, "build", "-d", folder, "-t", "wheel"], LIVELB_INTERPRETED="1")
    return folder


def wheel(dist: Path, form: str) -> Path:
    """Return the wheel of a form."""
    pure = [path for path in dist.glob("*.whl") if path.stem.endswith("-py3-none-any")]
    compiled = [path for path in dist.glob("*.whl") if path not in pure]
    assert (len(pure), len(compiled)) == (1, 1), list(dist.iterdir())
    return compiled[0] if form == "compiled" else pure[0]


def test_these_are_the_commands() -> None:
    """`make dist` does what is tried here."""
    said = run(["make", "--dry-run", "dist"]).replace(".venv/bin/", "").splitlines()
    assert said[-2:] == [
        "hatchling build -d dist",
        "LIVELB_INTERPRETED=1 hatchling build -d dist -t wheel",
    ]


def test_what_is_in_them(dist: Path) -> None:
    """One has every module compiled, beside its text; the other none; and both have the types that C is made with."""
    kinds = {}
    for form in ("compiled", "interpreted"):
        with zipfile.ZipFile(wheel(dist, form)) as archive:
            kinds[form] = set(archive.namelist())
    extensions = {name for name in kinds["compiled"] if name.endswith(".so")}
    assert len(extensions) == len(build.COMPILED)
    assert {name for name in kinds["interpreted"] if name.endswith(".so")} == set()
    sources = {str(path.relative_to(ROOT)) for one in build.COMPILED for path in build.sources(one)}
    for names in kinds.values():
        assert sources <= names
    assert {name.split("/")[0] for name in kinds["interpreted"]} == {
        name.split("/")[0] for name in kinds["compiled"]
    }


def test_the_source_can_be_compiled(dist: Path, tmp_path: Path) -> None:
    """A wheel made from the source archive has the same extension modules."""
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = tmp_path / "made"
    # what this checkout has compiled from the same text need not be compiled again
    again = {"LIVELB_COMPILED": str(build.ROOT)}
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", made, source], **again)
    (from_source,) = made.iterdir()
    assert from_source.name == wheel(dist, "compiled").name
    with zipfile.ZipFile(from_source) as ours, zipfile.ZipFile(wheel(dist, "compiled")) as theirs:
        assert {name for name in ours.namelist() if "_compiled" in name} == {
            name for name in theirs.namelist() if "_compiled" in name
        }


@pytest.mark.parametrize("form", ["compiled", "interpreted"])
def test_installed_and_run(dist: Path, tmp_path: Path, form: str) -> None:
    """In a fresh environment it relays, and says in three places what runs."""
    venv = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", venv])
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        venv / "bin/python",
    ]
    run([*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel(dist, form)])
    # the dependencies are those of this environment, which are pinned; a .pth there names this checkout and is not read
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = venv / "bin/lb-dataplane"
    where = run(
        [venv / "bin/python", "-P", "-c", "import dataplane.net.leg; print(dataplane.net.leg.__file__)"]
    )
    assert where.startswith(str(packages))
    assert run([program, "--version"]).split()[-1] == form
    if form == "compiled":
        assert run([program, "--version"], LIVELB_INTERPRETED="1").split()[-1] == "interpreted"
    plane = DataPlane(["--workers", "2"])
    plane.argv[0] = str(program)
    plane._environment.pop("LIVELB_INTERPRETED", None)
    with LineServer("one") as server, HeldPort() as port, plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address]}})
        assert ask(port.address).startswith(b"one:")
        assert plane.request("GET", "/v1/info")[1]["build"] == form
        assert plane.status()["build"] == form


def test_nothing_is_left_behind(dist: Path) -> None:
    """Three files are made, and this checkout has no more than it had: what is compiled here is named by its text."""
    assert len(list(dist.iterdir())) == 3
    if shutil.which("git") and (ROOT / ".git").exists():
        assert ".so" not in run(["git", "status", "--porcelain"])
