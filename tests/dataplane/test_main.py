"""From options to an exit code: what ends a data plane before it serves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane import main
from dataplane.api.server import api_path
from schemas.system.unix_socket import OwnSocket
from tests.dataplane.test_process import options  # noqa: F401 - a fixture


def test_a_name_that_is_in_use(options, capfd):  # noqa: F811 - the fixture
    """It is said by whom, and what to do."""
    own = OwnSocket(api_path(options.runtime_dir, options.name))
    own.acquire()
    assert main.run(options) == 1
    own.close()
    said = capfd.readouterr().err
    assert said.startswith(f"lb-dataplane: {own.path} is in use by process ")
    assert said.endswith("choose another --name, or end that one\n")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [(None, 1, "lb.yaml: "), ("version: 1\nservices: {web: {}}", 2, "services.web.listen")],
    ids=["missing", "invalid"],
)
def test_what_cannot_be_run(options, tmp_path, capfd, text, code, said):  # noqa: F811 - the fixture
    """2 for what is written wrong, 1 for what the machine does not have; the name is free again."""
    config = tmp_path / "lb.yaml"
    if text is not None:
        config.write_text(text)
    assert main.run(replace(options, config=config)) == code
    assert said in capfd.readouterr().err
    OwnSocket(api_path(options.runtime_dir, options.name)).acquire()


def test_a_bug_of_ours(options, monkeypatch, capfd):  # noqa: F811 - the fixture
    """It is one line of the log, and the exit code of a failure."""

    def fail(_process):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(main, "Single", fail)
    assert main.run(options) == 1
    told = capfd.readouterr()
    assert "ZeroDivisionError: of ours" in told.out + told.err
