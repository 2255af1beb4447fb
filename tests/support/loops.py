"""Running coroutine tests on both event loops that the data plane may have."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest
import uvloop

# libuv opens a pipe for signals with its first loop and keeps it, which would look like a leak of the first test.
uvloop.new_event_loop().close()


def on_both_loops(tests: type) -> type:
    """Run each coroutine test of a class on asyncio's event loop and on uvloop, each in a loop of its own.

    The loop is closed before the test's fixtures are torn down, so that `no_leaks` sees only what is left over.
    """
    for name, test in list(vars(tests).items()):
        if name.startswith("test_") and inspect.iscoroutinefunction(test):
            setattr(tests, name, _on_both(test))
    return tests


def _on_both(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(*args, **fixtures))

    wanted = inspect.signature(test)
    extra = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = wanted.replace(parameters=[*wanted.parameters.values(), extra])  # type: ignore[attr-defined]
    loops = [
        pytest.param(asyncio.new_event_loop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ]
    parametrized: Callable[..., None] = pytest.mark.parametrize("new_loop", loops)(run)
    return parametrized
