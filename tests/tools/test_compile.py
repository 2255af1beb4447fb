"""tools/compile.py: what it compiles again, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

import pytest

from tools.soak_sanitized import environment

ROOT = Path(__file__).resolve().parents[2]
HEADERS = Path(str(sysconfig.get_config_var("INCLUDEPY")), "Python.h")
compiles = (
    pytest.mark.needs("cc"),
    pytest.mark.skipif(
        not HEADERS.exists() and os.environ.get("CI") != "true", reason="Python's headers are missing"
    ),
    pytest.mark.timeout(300),  # a compiler where others have the cores, too
)


class Project:
    """A small one, with two modules to compile of which `two` knows the types of `one`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.room = root / "dataplane/net"
        self.room.mkdir(parents=True)
        (root / "tools").mkdir()
        shutil.copy(ROOT / "tools/compile.py", root / "tools")
        shutil.copy(ROOT / "dataplane/net/__init__.py", self.room)
        text = (ROOT / "dataplane/build.py").read_text()
        listed = 'COMPILED: Final = ("dataplane.net.one", "dataplane.net.two")\n'
        text, count = re.subn(r"^COMPILED: Final = \(.*?^\)\n", listed, text, flags=re.DOTALL | re.MULTILINE)
        assert count == 1
        (root / "dataplane/build.py").write_text(text)
        (root / "dataplane/__init__.py").touch()
        self.write("one.py", "class One:\n    def __init__(self, n):\n        self.n = n\n")
        self.write("one.pxd", "cdef class One:\n    cdef public long n\n")
        self.write("two.py", "from dataplane.net.one import One\n\ndef answer():\n    return One(6).n * 7\n")
        self.write("two.pxd", "from dataplane.net.one cimport One\n\ncpdef answer()\n")

    def write(self, name: str, text: str) -> None:
        """Put a file into the room."""
        (self.room / name).write_text(text)

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python in it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LIVELB_")}
        return subprocess.run(
            [sys.executable, *argv],
            cwd=self.root,
            env={**clean, "CFLAGS": "-O0", **environment},  # what comes out is not what takes time here
            capture_output=True,
            text=True,
            check=False,
        )

    def compile(self) -> str:
        """Compile it, and return what that said."""
        done = self.run("tools/compile.py")
        assert (done.returncode, done.stdout) == (0, "")
        return done.stderr

    def answer(self) -> list[str]:
        """Return what a process that starts now gets, and from a file of which kind."""
        asked = "from dataplane.net import two; print(two.answer(), two.__file__.rpartition('.')[2])"
        done = self.run("-c", asked)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def folders(self) -> list[Path]:
        """Return what was compiled."""
        return list((self.root / "dataplane/_compiled").glob("[!.]*"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One in which nothing is compiled."""
    return Project(tmp_path)


class TestWhereThereIsACompiler:
    """One source, two forms."""

    pytestmark: ClassVar = [*compiles]

    def test_only_what_has_changed(self, project: Project) -> None:
        """What an edit does not concern is taken again; back and forth costs nothing."""
        assert project.answer() == ["42", "py"]
        assert project.compile() == "compiling 2 modules of the connection path\n"
        assert project.answer() == ["42", "so"]
        assert project.compile() == ""

        before = (project.room / "two.py").read_text()
        project.write("two.py", before.replace("7", "8"))
        assert project.answer() == ["48", "py"]
        assert project.compile() == "compiling 1 modules of the connection path\n"
        assert project.answer() == ["48", "so"]
        project.write("two.py", before)
        assert project.answer() == ["42", "so"]

        project.write("one.pxd", "cdef class One:\n    cdef public long n, m\n")
        assert project.compile() == "compiling 2 modules of the connection path\n"
        assert project.answer() == ["42", "so"]

    def test_folders_do_not_pile_up(self, project: Project) -> None:
        """Of many edits the last ones stay, and nothing unfinished."""
        for count in range(9):
            project.write("two.py", f"def answer():\n    return {count}\n")
            project.write("two.pxd", "")
            project.write("one.py", "class One:\n    pass\n")
            project.write("one.pxd", "")
            if not count:
                project.compile()
                (first,) = project.folders()
                continue
            shutil.copytree(first, first.with_name(f"former-{count}"))
        abandoned, busy = (first.with_name(f".unfinished-{name}") for name in ("abandoned", "busy"))
        abandoned.mkdir()
        busy.mkdir()
        os.utime(abandoned, (0, 0))
        assert len(project.folders()) == 9
        project.compile()
        assert len(project.folders()) == 6
        assert (busy.exists(), abandoned.exists()) == (True, False)
        assert project.answer() == ["8", "so"]

    def test_an_edit_while_it_compiles(self, project: Project) -> None:
        """What was edited meanwhile is compiled again, and passes for neither text before that."""
        before = (project.room / "two.py").read_text()
        edited = project.root / "edited"
        compiler = project.root / "cc"
        compiler.write_text(
            f'#!/bin/sh\n[ -e {edited} ] || {{ touch {edited}; sed -i s/7/8/ {project.room}/two.py; }}\nexec cc "$@"\n'
        )
        compiler.chmod(0o755)
        done = project.run("tools/compile.py", CC=str(compiler))
        assert (done.returncode, done.stderr.splitlines()) == (
            0,
            ["compiling 2 modules of the connection path", "compiling 1 modules of the connection path"],
        )
        assert project.answer() == ["48", "so"]
        assert len(project.folders()) == 1
        project.write("two.py", before)
        assert project.answer() == ["42", "py"]

    def test_what_does_not_compile_is_an_error(self, project: Project) -> None:
        """It is named, nothing passes for compiled, and what has been compiled is not compiled again."""
        before = (project.room / "two.py").read_text()
        project.write("two.py", "def answer(:\n")
        done = project.run("tools/compile.py")
        assert done.returncode == 1
        assert "dataplane.net.two does not compile" in done.stderr
        project.write("two.py", before)
        assert project.answer() == ["42", "py"]
        assert project.compile() == "compiling 1 modules of the connection path\n"
        assert project.answer() == ["42", "so"]

    def test_other_flags_compile_again(self, project: Project) -> None:
        """What was made with other flags is not taken for these."""
        project.compile()
        done = project.run("tools/compile.py", CFLAGS="-O1")
        assert (done.returncode, done.stderr) == (0, "compiling 2 modules of the connection path\n")
        (folder,) = project.folders()
        assert json.loads((folder / "made_from.json").read_text()).keys() == {
            "dataplane.net.one",
            "dataplane.net.two",
        }
        assert project.answer() == ["42", "so"]

    def test_with_sanitizers(self, project: Project) -> None:
        """What is compiled with them is found where it is put, and runs in the environment that the soak gives it."""
        asked = ["cc", "-print-file-name=libasan.so"]
        library = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        if not Path(library).is_absolute():
            pytest.skip("AddressSanitizer is missing")
        said = project.run("tools/compile.py", "--sanitize", "--into", "sanitized")
        assert (said.returncode, said.stderr) == (0, "compiling 2 modules of the connection path\n")
        assert project.answer() == ["42", "py"]
        watched = {**environment(library), "LIVELB_COMPILED": str(project.root / "sanitized")}
        asked = ["-c", "from dataplane.net import two; print(two.answer(), two.__file__[-2:])"]
        done = project.run(*asked, **watched)
        assert (done.stdout, done.stderr) == ("42 so\n", "")
        without = project.run(*asked, LIVELB_COMPILED=watched["LIVELB_COMPILED"])
        assert "ASan runtime does not come first" in without.stderr


def test_without_a_compiler_one_line_says_so(project: Project) -> None:
    """It is no error, and what runs is the text."""
    done = project.run("tools/compile.py", CC="/nowhere/cc")
    expected = "the connection path is not compiled: there is no C compiler; it runs interpreted\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", expected)
    assert project.answer() == ["42", "py"]
