"""Paths of files in lb.yaml: whoever names one relatively means the folder of the file that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from schemas.desired import at_folder, desired_of
from schemas.fields import Frozen
from schemas.files import FilePath, with_absolute_files
from schemas.reading.document import scan_document

HERE = Path("/etc/lb")


class Pair(Frozen):
    """A certificate and its key."""

    cert: FilePath
    key: FilePath | None = None
    name: str = ""


class Site(Frozen):
    """Every way in which a path can stand in a model."""

    tls: tuple[Pair, ...] = ()
    extra: dict[str, Pair] = Field(default_factory=dict)
    authority: FilePath | Literal["system"] = Field(default="system", alias="ca")
    files: Annotated[tuple[FilePath, ...], Field(max_length=3)] = ()
    either: Pair | tuple[Pair, ...] | None = None
    text: str = ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"tls": [{"cert": "a.pem", "key": "keys/a.key"}]}, {"tls": [{"cert": "/etc/lb/a.pem", "key": "/etc/lb/keys/a.key"}]}),
        ({"extra": {"x": {"cert": "/a.pem", "name": "b.pem"}}}, {"extra": {"x": {"cert": "/a.pem", "name": "b.pem"}}}),
        ({"ca": "../ca.pem"}, {"ca": "/etc/lb/../ca.pem"}),
        ({"authority": "ca.pem"}, {"authority": "/etc/lb/ca.pem"}),
        ({"files": ["a", "", 3]}, {"files": ["/etc/lb/a", "", 3]}),
        ({"either": {"cert": "a"}}, {"either": {"cert": "/etc/lb/a"}}),
        ({"either": [{"cert": "a"}]}, {"either": [{"cert": "/etc/lb/a"}]}),
        ({"tls": "a.pem", "text": "a.pem", "none": "a.pem"}, {"tls": "a.pem", "text": "a.pem", "none": "a.pem"}),
        ([], []),
    ],
)  # fmt: skip
def test_every_place_of_a_path(written: Any, meant: Any):
    """Inside models, lists and mappings, under either name; other texts and what is wrong stay as they are."""
    assert with_absolute_files(written, Site, HERE) == meant


def test_what_names_no_file_is_not_looked_at():
    """It is the same object afterwards: a large lb.yaml costs nothing."""

    class Plain(BaseModel):
        texts: list[str]

    value = {"texts": ["a"]}
    assert with_absolute_files(value, Plain, HERE) is value


def test_every_file_of_an_lb_yaml():
    """All that the format names today; what is checked afterwards has the absolute paths."""
    text = b"""
version: 1
services: {}
consul: {address: "https://127.0.0.1:8501", token_file: t, ca_file: ca/x, cert_file: /c, key_file: k}
"""
    document = at_folder(scan_document(text), HERE)
    consul = desired_of(document).consul
    found = [consul.token_file, consul.ca_file, consul.cert_file, consul.key_file]
    assert found == ["/etc/lb/t", "/etc/lb/ca/x", "/c", "/etc/lb/k"]
    assert document.value["consul"] == consul.model_dump(exclude_unset=True)
