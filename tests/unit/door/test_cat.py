"""How many files are opened ahead for the clients that read many."""

from contextlib import AsyncExitStack, aclosing

import pytest
import trio
import trio.testing

from phonofs.door.cat import AHEAD, AHEAD_OF_ALL, LEAST, ReadAhead, readings


class Files:
    """Opens files of ten bytes; counts those that are open."""

    def __init__(self) -> None:
        self.open_now = self.most = 0

    async def open(self, path: str, *, in_order: bool) -> "File":
        await trio.lowlevel.checkpoint()
        self.open_now += 1
        self.most = max(self.most, self.open_now)
        return File(self, path)


class File:
    size = 10

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path

    async def read(self, offset: int, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._path.encode().rjust(self.size)[offset : offset + size]

    def close(self) -> None:
        self._files.open_now -= 1


async def read_all(files: Files, ahead: ReadAhead, count: int) -> list[bytes]:
    items = [(str(n), None, None) for n in range(count)]
    async with readings(files, items, ahead) as each:  # type: ignore[arg-type]
        return [reading.first.strip() async for reading in each]


@pytest.mark.parametrize("clients", [1, 2, 8, 100])
async def test_all_clients_together_have_so_many_files_ahead(clients: int):
    """Each has some, however many there are; one alone has no more than it can use."""
    ahead, files = ReadAhead(), Files()
    others = clients - 1
    async with AsyncExitStack() as stack:
        for _ in range(others):
            stack.enter_context(ahead.of_client())
        assert await read_all(files, ahead, 200) == [str(n).encode() for n in range(200)]
    assert files.most == max(LEAST, min(AHEAD, AHEAD_OF_ALL // clients))
    assert files.open_now == 0
    assert ahead.files == AHEAD


async def test_one_that_comes_leaves_the_others_less():
    """What they have open already, they keep; they open no more until it is read."""
    ahead, files = ReadAhead(), Files()
    items = [(str(n), None, None) for n in range(100)]
    async with readings(files, items, ahead) as all_of_them, aclosing(all_of_them) as each:  # type: ignore[arg-type]
        await anext(each)
        assert files.open_now <= AHEAD
        with ahead.of_client(), ahead.of_client(), ahead.of_client():
            for _ in range(AHEAD):
                await anext(each)
            await trio.testing.wait_all_tasks_blocked()
            assert files.open_now == ahead.files == AHEAD_OF_ALL // 4
    assert files.open_now == 0
