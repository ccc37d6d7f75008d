"""One address that leads to one of several servers, or from which answers come late."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import Self

T = TypeVar("T")


class Switch:
    """Passes connections on to the server that is chosen when they are opened.

    Args:
        port: Where the first server listens, on the loopback.
        late: Seconds by which each answer comes late.
    """

    def __init__(self, port: int, late: float = 0.0) -> None:
        self._late = late
        self.leads_to = port
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is handled in a task")
        self._open.add(task)
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.leads_to)
            try:
                await asyncio.gather(
                    _pass(reader, forth), _pass(back, writer, self._late)
                )
            finally:
                forth.close()
        except (asyncio.CancelledError, ConnectionRefusedError):
            pass  # the switch is closed, or no server listens there
        finally:
            writer.close()
            self._open.discard(task)

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float = 0.0
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            await asyncio.sleep(late)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
