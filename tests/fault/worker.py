"""The app without FUSE, reading at random until it is killed: ``URL FOLDER SEED``.

Its cache holds a third of the account, so that it fills and evicts all the time; every few reads
it polls for changes and lists directories. It prints a line when it has read its first file. If a
byte is wrong, it exits with status 3.
"""

import random
import sys
from pathlib import Path

import trio

from phonofs.app import open_app
from phonofs.errors import PhonofsError
from phonofs.tree.layout import ROOT
from tests.fault.scene import KERNEL, settings_of

OPTIONS = {"cache_size": "4M", "poll_interval": "1s", "read_deadline": "10s"}
PRIME = 251


async def main(url: str, folder: str, seed: str) -> None:
    chance = random.Random(seed)
    settings = settings_of(url, Path(folder), **OPTIONS)
    async with open_app(settings, f"{folder}/m") as app, trio.open_nursery() as nursery:
        await app.start_tasks(nursery)
        await app.connect()
        files: list[int] = []
        await walk(app.vfs, ROOT, files)
        print("begun", flush=True)
        while True:
            async with trio.open_nursery() as readers:
                for _ in range(3):
                    readers.start_soon(read, app.vfs, chance.choice(files))


async def walk(vfs, ino: int, files: list[int]) -> None:
    for entry in (await vfs.open_folder(ino)).entries:
        if entry.is_directory:
            await walk(vfs, entry.ino, files)
        else:
            files.append(entry.ino)


async def read(vfs, ino: int) -> None:
    try:
        handle = await vfs.open(ino)
    except PhonofsError:
        return
    got = bytearray()
    try:
        while piece := await vfs.read(handle, len(got), KERNEL):
            got += piece
    except PhonofsError:
        return
    finally:
        vfs.release(handle)
    ramp = bytes((got[0] + n) % PRIME for n in range(PRIME)) if got else b""
    if bytes(got) != (ramp * (len(got) // PRIME + 1))[: len(got)]:
        sys.exit(3)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
