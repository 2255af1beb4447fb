"""deploy/docker: linted, and each of its facts tried, as no engine is at hand to build it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataplane import build
from tests.support.backends import EchoServer
from tests.support.dataplane import DataPlane, command
from tests.support.ports import HeldPort
from tests.support.programs import require

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy/docker"
COMPOSE = DOCKER / "compose.yaml"

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """Return the Dockerfile's instructions, each on one line."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def values(kind: str) -> list[str]:
    """Return what stands behind each instruction of a kind."""
    return [rest for word, rest in instructions() if word == kind]


def copied() -> list[tuple[str, str]]:
    """Return source and target of everything that is copied from the folder of this project."""
    pairs = []
    for one in values("COPY"):
        if not one.startswith("--from="):
            *sources, target = one.split()
            pairs += [(source, target) for source in sources]
    return pairs


def services() -> dict[str, Any]:
    """Return the compose file's services."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def environment() -> dict[str, str]:
    """Return the image's environment."""
    return dict(pair.split("=", 1) for pair in shlex.split(" ".join(values("ENV"))))


@pytest.mark.needs("hadolint")
def test_the_dockerfile_satisfies_its_linter() -> None:
    """Hadolint has no complaint, not even for information."""
    done = subprocess.run(
        [require("hadolint"), "--no-color", "--failure-threshold", "style", str(DOCKER / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.needs("docker-compose")
def test_the_compose_file_is_one(tmp_path: Path) -> None:
    """Compose resolves it: every key is known, every volume declared, and both build the same Dockerfile."""
    done = subprocess.run(
        [require("docker-compose"), "-f", str(COMPOSE), "config"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    for service in resolved["services"].values():
        build = service["build"]
        assert (Path(build["context"]) / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    volumes = [_mount(each) for each in resolved["services"]["control"]["volumes"]]
    assert (f"{DOCKER}/etc", "/etc/lb", True) in volumes


def _mount(volume: str | dict[str, Any]) -> tuple[str, str, bool]:
    """Return source, target and whether it is only read; older versions of Compose write the short form."""
    if isinstance(volume, dict):
        return volume["source"], volume["target"], volume.get("read_only", False)
    source, target, *mode = volume.split(":")
    return source, target, "ro" in mode


@pytest.mark.parametrize(
    "volume",
    ["/a:/b:ro", {"type": "bind", "source": "/a", "target": "/b", "read_only": True, "bind": {}}],
)
def test_both_forms_of_a_volume_are_read(volume: str | dict[str, Any]) -> None:
    """Debian 12's docker-compose resolves to text, Debian 13's to a mapping."""
    assert _mount(volume) == ("/a", "/b", True)


def test_all_that_is_copied_exists_and_is_let_in() -> None:
    """Each source of a COPY is there, and the ignore file, which keeps everything else out, lets it in."""
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {f"!{source}" for source, _ in copied()} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source, _ in copied())


def test_what_is_copied_is_enough_to_build_the_programs(tmp_path: Path) -> None:
    """A wheel of nothing but the copied files has every package and both programs."""
    for source, target in copied():
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "_compiled")
            shutil.copytree(ROOT / source, tmp_path / target, ignore=ignored)
        else:
            (tmp_path / target).mkdir(exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / target)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"),
            *("--no-build-isolation", "--no-index", "--wheel-dir", "wheel", "."),
        ],
        check=True,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        # what this checkout has compiled from the same text need not be compiled again
        env={**os.environ, "LIVELB_COMPILED": str(build.ROOT)},
    )
    (wheel,) = (tmp_path / "wheel").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = (name for name in names if name.endswith("entry_points.txt"))
        scripts = archive.read(points).decode()
    if build.BUILD == "compiled":
        assert sum(name.endswith(build.SUFFIX) for name in names) == len(build.COMPILED)
    packages = {source for source, _ in copied() if (ROOT / source).is_dir()}
    assert packages <= {name.split("/")[0] for name in names}
    assert re.findall(r"^(lb-\S+) *=", scripts, re.MULTILINE) == ["lb-control", "lb-dataplane"]


def test_the_image_has_no_compiler() -> None:
    """What compiles is the first stage's; the last one is slim, of the same Python and Debian, and installs nothing."""
    first, last = values("FROM")
    assert first.removesuffix(" AS build") == last.replace("-slim", "")
    assert "-slim" in last
    stage = instructions()[instructions().index(("FROM", last)) :]
    assert [
        rest for word, rest in stage if word == "RUN" and re.search(r"\b(apt|apt-get|pip|cc|gcc)\b", rest)
    ] == []


def test_every_command_can_be_run() -> None:
    """The image's command, its health check and compose's commands are programs with the options they are given."""
    check = values("HEALTHCHECK")[0].partition(" CMD ")[2]
    commands = [
        json.loads(values("CMD")[0]),
        json.loads(check),
        *(one["command"] for one in services().values()),
    ]
    for program, *arguments in commands:
        done = subprocess.run(
            [command(program), *arguments, "--help"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), [program, *arguments]


def test_the_health_check_says_what_is(tmp_path: Path) -> None:
    """In the image's environment it fails before there is a snapshot, and is content as soon as one is served."""
    check = json.loads(values("HEALTHCHECK")[0].partition(" CMD ")[2])
    assert environment().keys() >= {"LB_RUNTIME_DIR", "LB_STATE_DIR"}
    with EchoServer() as backend, HeldPort() as port, DataPlane(["--workers", "2"]) as plane:
        paths = {"LB_RUNTIME_DIR": str(plane.runtime_dir), "LB_STATE_DIR": str(tmp_path)}

        def run() -> int:
            argv = [command(check[0]), *check[1:]]
            return subprocess.run(argv, env=paths, capture_output=True, check=False).returncode

        assert run() == 1
        plane.put_snapshot({"web": {"listen": port.address, "backends": [backend.address]}})
        assert run() == 0


def test_the_folders_are_the_users_and_are_kept() -> None:
    """What the programs write to belongs to the image's user, and is a volume in both services."""
    (user,) = values("USER")
    setup = " ".join(values("RUN"))
    uid, gid = user.split(":")
    assert f"--uid {uid} " in setup
    assert f"--gid {gid} " in setup
    folders = [environment()[name] for name in ("LB_RUNTIME_DIR", "LB_STATE_DIR")]
    assert json.loads(values("VOLUME")[0]) == folders
    assert re.search(rf"install -d -m 0700 -o lb -g lb {' '.join(folders)}$", setup)
    for service in services().values():
        assert service["read_only"]
        assert folders <= [volume.split(":")[1] for volume in service["volumes"]]


def test_the_configuration_is_valid() -> None:
    """The lb.yaml that compose mounts is one."""
    done = subprocess.run(
        [command("lb-control"), "validate", str(DOCKER / "etc/lb.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
