"""A line to a server that takes its time: every answer comes late."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")


@contextmanager
def slow_line(port: int, seconds: float) -> Iterator[int]:
    """Yield a port that leads to another; what comes back, comes that much later.

    Args:
        port: Where the server listens, on the loopback.
        seconds: How late each answer is.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def accept(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass(reader, forth), _pass(back, writer, seconds))
        for end in (forth, writer):
            end.close()

    async def close() -> None:
        server.close()
        lines = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*lines), 10)

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    server = run(asyncio.start_server(accept, "127.0.0.1", 0))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        run(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float = 0.0
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            await asyncio.sleep(late)
            writer.write(data)
        writer.write_eof()
