"""What this node's variables are (`schemas.variables`): from the environment, from its Consul agent, or as they were kept.

Theory of operation:

1. The environment comes first: whoever starts a process decides what its node is called.
2. The agent is asked when a file needs what the environment has not, and once: a node does not change its name while it runs.
3. What it said is kept, so that a start without Consul knows it. If neither tells, the file cannot be taken yet, and the
   agent is asked again with the next try.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from controlplane.errors import ControlError, StoreError

if TYPE_CHECKING:
    from controlplane.discovery.consul.settings import ConsulSettings
    from schemas.variables import Known, Variables


class Keeps(Protocol):
    """Where the agent's words outlive the process."""

    def identity(self) -> dict[str, str]:
        """Return what was kept; nothing if there is nothing; StoreError if it cannot be read."""

    def keep_identity(self, values: Mapping[str, str]) -> None:
        """Keep it; StoreError if it cannot be written."""


class Identity:
    """Finds variables: a `Look`. Blocking, for up to three seconds; any thread may ask.

    Args:
        environ: Of the process that reads the lb.yaml.
        kept: Where the agent's words are kept.
        writes: Whether they are written there; False: only read.
    """

    def __init__(self, environ: Mapping[str, str], kept: Keeps, *, writes: bool = False) -> None:
        self._environ = dict(environ)
        self._kept = kept
        self._writes = writes
        self._asking = threading.Lock()
        self._agent: dict[str, Known] | None = None

    def __call__(self, names: frozenset[str], consul: Any) -> Variables:
        """Return what there is of these; see `schemas.variables.Look`."""
        from schemas.variables import FROM_AGENT, NOT_SET, Variables, from_environment  # noqa: PLC0415 - pydantic, only where it is needed

        known = from_environment(self._environ)
        unknown = dict.fromkeys(names - known.keys(), NOT_SET)
        asked = sorted(unknown.keys() & set(FROM_AGENT))
        if not asked:
            return Variables(known, unknown)
        found, why = self._ask(consul)
        known = {**found, **known}
        unknown |= dict.fromkeys(asked, f"{NOT_SET}, and {why}")
        return Variables(
            known, {name: unknown[name] for name in unknown if name not in known}, passing=not found
        )

    def everything(self, consul: Any) -> dict[str, str]:
        """Return all variables that this node has, as other nodes are told."""
        from schemas.variables import FROM_AGENT  # noqa: PLC0415 - pydantic, only where it is needed

        return {name: each.value for name, each in self(frozenset(FROM_AGENT), consul).known.items()}

    def _ask(self, consul: Any) -> tuple[dict[str, Known], str]:
        """Return what the agent says or once said, and why it does not say more."""
        with self._asking:
            if self._agent is not None:
                return self._agent, "the Consul agent does not say it"
            from controlplane.discovery.consul.agent import ask_agent  # noqa: PLC0415 - py-consul, only where it is needed
            from schemas.variables import Known, is_value  # noqa: PLC0415 - pydantic, the same

            try:
                settings = self._settings(consul)
                where = f"the Consul agent at {settings.address()}"
                said, source = asyncio.run(ask_agent(settings)), where
                why = f"{where} does not say it"
            except ControlError as error:
                said, source = self._kept_values(), "what the Consul agent said once"
                why = f"the Consul agent does not say it: {error}"
            else:
                if self._writes:
                    with contextlib.suppress(
                        StoreError
                    ):  # `history` and `status` tell that the directory is of no use
                        self._kept.keep_identity(said)
            found = {name: Known(value, source) for name, value in said.items() if is_value(value)}
            self._agent = found or None
            return found, why

    def _kept_values(self) -> dict[str, str]:
        with contextlib.suppress(StoreError):
            return self._kept.identity()
        return {}

    def _settings(self, consul: Any) -> ConsulSettings:
        """Return the agent that an lb.yaml names, or else the environment."""
        from pydantic import ValidationError  # noqa: PLC0415 - only where it is needed

        from controlplane.discovery.consul.settings import (  # noqa: PLC0415 - the same
            SettingsError,
            settings_from_environment,
            settings_of,
        )
        from schemas.discovery import Consul  # noqa: PLC0415 - the same

        if not consul:
            return settings_from_environment(self._environ, base=Path())
        try:
            return settings_of(Consul.model_validate(consul))
        except ValidationError:
            raise SettingsError("consul in this file is wrong") from None
