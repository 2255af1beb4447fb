"""The one body that errors have, and what becomes of each kind of error."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from schemas.http.answers import Refusal, alive, answered, prometheus


def explain(error):
    """Know of one error."""
    return Refusal(422, "invalid", "it is wrong", [{"path": "a", "message": "b"}]) if error.args else None


async def answer_of(error=None, refusal=None):
    """Return status and body of a call that fails, or is refused."""

    async def handler(request):
        if error is not None:
            raise error
        return await alive(request)

    response = await answered(lambda _: refusal, explain)(make_mocked_request("GET", "/"), handler)
    return response.status, json.loads(response.body)


async def test_a_call_is_let_in():
    """Without a refusal the call is answered."""
    assert await answer_of() == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (ValueError("x"), 422, "invalid", "it is wrong"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "too_large", "a body has at most 8388608 bytes"),
        (web.HTTPNotFound(), 404, "not_found", "404: Not Found"),
        (web.HTTPBadRequest(text="no JSON"), 400, "bad_request", "no JSON"),
    ],
)
async def test_errors_have_one_body(error, status, code, message):
    """Whether the plane, aiohttp or a limit said no."""
    got, body = await answer_of(error)
    assert (got, body["code"], body["message"]) == (status, code, message)
    assert body.keys() == {"code", "message", "details"}


async def test_refusals_have_the_same_body():
    """Who may not call learns why in the same form, and the call is not made."""
    refusal = Refusal(403, "foreign", "go away")
    body = {"code": "foreign", "message": "go away", "details": []}
    assert await answer_of(RuntimeError(), refusal) == (403, body)


async def test_a_bug_stays_one():
    """What nobody can explain is an error of ours, and reaches who logs those."""
    with pytest.raises(RuntimeError):
        await answer_of(RuntimeError())


def test_metrics_are_prometheus_text():
    """The version of the format is said."""
    response = prometheus(b"a 1\n")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.body == b"a 1\n"
