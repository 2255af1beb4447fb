"""A session of Consul's: what is written under it is somebody's for as long as that one renews it.

Theory of operation:

1. A session that is not renewed for its TTL is ended by Consul, at the latest after twice that time; and when the agent that it
   was made at is found dead. Its keys are let go (`release`: a node's record stays, as the last that was heard of it) or deleted
   (`delete`: a lock). There is no delay before the next one may have them: nothing is guarded by it that two could break.
2. Whoever holds one renews it three times in a TTL. Consul says when it has ended: then a new one is made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal

from controlplane.discovery.consul.settings import ConsulError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient

TTL_S: Final = 10.0
"""Consul's own least value."""
RENEW_S: Final = TTL_S / 3
CALL_TIMEOUT_S: Final = 5.0
Behavior = Literal["release", "delete"]


class LostSession(ConsulError):  # noqa: N818 - a state that is expected
    """The session has ended; a new one has to be made."""

    def __init__(self) -> None:
        super().__init__("failed", "the session has ended")


class Session:
    """One at a time: `ensure` makes it, and makes it anew when it was lost.

    Args:
        client: Of the agent.
        name: What `consul` shows it as.
        behavior: What becomes of its keys when it ends.
        ttl_s: Its TTL, 10 to 86400.
    """

    def __init__(
        self, client: ConsulClient, name: str, behavior: Behavior = "release", *, ttl_s: float = TTL_S
    ) -> None:
        self.id: str | None = None
        """None: there is none."""
        self._client = client
        self._name = name
        self._behavior = behavior
        self._ttl_s = ttl_s

    async def ensure(self) -> bool:
        """Renew it, or make one; True if it was made.

        Raises:
            ConsulError: Consul does not answer, or does not allow it; it may still live.
        """
        if self.id is not None:
            reply = await self._client.put(f"/v1/session/renew/{self.id}", timeout_s=CALL_TIMEOUT_S)
            if reply.status != 404:  # noqa: PLR2004 - HTTP's "not found"
                return False
            self.id = None
        body = {
            "Name": self._name,
            "TTL": f"{self._ttl_s:g}s",
            "Behavior": self._behavior,
            "LockDelay": "0s",
        }
        reply = await self._client.put(
            "/v1/session/create", body=json.dumps(body).encode(), timeout_s=CALL_TIMEOUT_S
        )
        try:
            self.id = str(json.loads(reply.body)["ID"])
        except (ValueError, TypeError, KeyError):
            raise ConsulError("protocol", "an answer that is no session") from None
        return True

    async def acquire(self, path: str, raw: bytes) -> bool:
        """Write a key as this session's; False: another session has it, and nothing was written.

        Args:
            path: The key, which `key.key_url` takes.
            raw: Its value.

        Raises:
            LostSession: This session has ended.
            ConsulError: There is no answer, or there is no session.
        """
        return await self._put(path, "acquire", raw)

    async def release(self, path: str, raw: bytes) -> bool:
        """Write a key of this session's for the last time, and let it go; False: it was not this session's.

        Raises:
            ConsulError: As for `acquire`.
        """
        return await self._put(path, "release", raw)

    async def destroy(self) -> None:
        """End it: its keys are let go, or deleted; nothing happens if there is none.

        Raises:
            ConsulError: There is no answer: it ends by itself when its TTL is over.
        """
        if self.id is not None:
            await self._client.put(f"/v1/session/destroy/{self.id}", timeout_s=CALL_TIMEOUT_S)
            self.id = None

    async def _put(self, path: str, how: str, raw: bytes) -> bool:
        if self.id is None:
            raise LostSession
        try:
            reply = await self._client.put(path, [(how, self.id)], raw, timeout_s=CALL_TIMEOUT_S)
        except ConsulError as error:
            if "invalid session" in error.detail:
                self.id = None
                raise LostSession from None
            raise
        return reply.body.strip() == b"true"
