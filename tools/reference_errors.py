"""The one body of errors, which `schemas.http.answers.Refusal` writes, as the reference shows it."""

from __future__ import annotations

from typing import TypedDict


class ErrorDetail(TypedDict):
    """One problem of a refused body."""

    path: str
    message: str


class ErrorBody(TypedDict):
    """Every answer that is an error."""

    code: str
    message: str
    details: list[ErrorDetail]
