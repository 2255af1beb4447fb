"""deploy/systemd: what systemd says of the units, and that their commands can be run."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.dataplane import command
from tests.support.programs import require

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy/systemd"
SERVICES = sorted(path.name for path in SYSTEMD.glob("*.service"))
EXPOSURE = "20"
"""Tenths: systemd calls up to 2.0 "OK", as good as a program with network sockets gets. Ours have 1.4 to 1.7."""


def section(name: str, of: str = "Service") -> configparser.SectionProxy:
    """Return a section of a unit; of a key that is there several times, the last."""
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign] # keys have capitals
    unit.read(SYSTEMD / name)
    return unit[of]


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    """No key is unknown, no value ignored, no unit missing: verify prints nothing."""
    units = []
    for path in [*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.socket")]:
        text = path.read_text()
        for program in ("lb-dataplane", "lb-control"):
            text = text.replace(f"/usr/bin/{program}", command(program))
        units.append(tmp_path / path.name)
        units[-1].write_text(text)
    for path in SYSTEMD.glob("*.d/*.conf"):
        beside = tmp_path / path.parent.name
        beside.mkdir(exist_ok=True)
        (beside / path.name).write_text(path.read_text())
    done = subprocess.run(
        [require("systemd-analyze"), "verify", "--man=no", *map(str, units)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened(name: str) -> None:
    """A unit that gave up one of its protections would be rated worse."""
    done = subprocess.run(
        [
            *(require("systemd-analyze"), "security", "--offline=true", "--no-pager"),
            *(f"--threshold={EXPOSURE}", str(SYSTEMD / name)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_commands_can_be_run(name: str) -> None:
    """Each service starts a program of ours, with options that it has."""
    program, *arguments = shlex.split(section(name)["ExecStart"].replace("%i", "0"))
    assert Path(program).parent == Path("/usr/bin")
    argv = [command(Path(program).name), *arguments, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), argv


def test_all_services_share_user_and_folders() -> None:
    """The control plane finds the data planes' sockets, which only their own user may use."""
    shared = (
        "User",
        "Group",
        "RuntimeDirectory",
        "RuntimeDirectoryPreserve",
        "StateDirectory",
        "Environment",
    )
    assert len({tuple(section(name)[key] for key in shared) for name in SERVICES}) == 1
    user = section(SERVICES[0])["User"]
    assert f"u {user} " in (SYSTEMD / "sysusers.conf").read_text()


@pytest.mark.parametrize("name", ["lb-dataplane.service", "lb-dataplane@.service"])
def test_the_end_of_the_main_process_takes_nobody_along(name: str) -> None:
    """Whoever drains lives on while the next one starts, and so do workers of a supervisor that has crashed."""
    unit = section(name)
    assert "--drain-detached" in unit["ExecStart"]
    assert (unit["KillMode"], unit["NotifyAccess"]) == ("process", "all")
