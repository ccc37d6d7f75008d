# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Hints in a Redis Cluster: a subscription to a channel of one slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: What messages of sharded channels are called elsewhere.
_PLAIN = {"smessage": "message", "ssubscribe": "subscribe"}


class ShardSubscription(PubSub):
    """Listens to one channel in the nodes of its slot; use it as a context manager.

    redis-py knows sharded channels only since its version 8.

    Args:
        client: A client whose connections lead to the primary of the slot.
        channel: The channel.
    """

    def __init__(self, client: Redis, channel: str) -> None:
        super().__init__(client.connection_pool)
        self._channel = channel
        self._command = "SSUBSCRIBE"

    async def open(self) -> None:
        """Subscribe; the answer comes as the first message."""
        await self.execute_command(self._command, self._channel)

    async def on_connect(self, connection: Any) -> None:  # noqa: ARG002 - redis-py's
        """Subscribe again on a new connection."""
        await self.open()

    async def get_message(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next message, in the form of one of a plain channel.

        Raises:
            RedisConnectionError: The slot has moved to other nodes.
        """
        try:
            message = await super().get_message(*args, **kwargs)
        except ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            self._command = "SUBSCRIBE"
            await self.open()
            return await self.get_message(*args, **kwargs)
        if message is not None:
            if message["type"] == "sunsubscribe":
                raise RedisConnectionError("the slot has moved to another node")
            message["type"] = _PLAIN.get(message["type"], message["type"])
        return message
