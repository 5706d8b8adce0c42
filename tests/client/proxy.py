"""A TCP proxy on loopback between the library and a worker, which can cut what passes through it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Passes bytes both ways; `received` counts what the worker has sent, over all connections."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits: list[int] = []
        self.address = ""
        self.received = 0
        self.connections = 0
        self.refuse = False
        self._more = asyncio.Event()

    async def passed(self, count: int) -> None:
        """Returns once the worker has sent so many more bytes."""
        goal = self.received + count
        while self.received < goal:
            self._more.clear()
            await self._more.wait()

    def cut(self) -> None:
        """Ends every connection at once, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut_after(self, *counts: int) -> None:
        """The connections to come end after so many bytes from the worker, one number for each."""
        self._limits = list(counts)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.refuse:
            writer.transport.abort()
            return
        self.connections += 1
        limit = self._limits.pop(0) if self._limits else None
        worker_reader, worker_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, worker_writer}
        for source, sink, most in ((reader, worker_writer, None), (worker_reader, writer, limit)):
            task = asyncio.create_task(self._pass(source, sink, count=source is worker_reader, most=most))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, count: bool, most: int | None
    ) -> None:
        passed = 0
        try:
            while data := await source.read(65536):
                if most is not None and passed + len(data) >= most:
                    sink.write(data[: most - passed])
                    await sink.drain()
                    self.cut()
                    return
                passed += len(data)
                if count:
                    self.received += len(data)
                    self._more.set()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()

    async def close(self) -> None:
        """Ends every connection and waits until nothing is left of them."""
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy_to(address: str) -> AsyncIterator[Proxy]:
    """A proxy to host:port, on a port the system chose."""
    proxy = Proxy(address)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.address = f"{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
