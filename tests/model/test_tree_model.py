"""The whole file system but FUSE against a reference rebuilt naively from the object list.

A story is a list of steps: what happens at the service, what a user does, what breaks. While it
is told, a listing shows what was there all along and nothing that never was, and every byte read
is right or an error; whenever all is well for a while, the tree is exactly the reference.
"""

import errno
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, currently_in_test_context, given, note, settings

from phonofs.catalogue.catalogue import Entry
from phonofs.catalogue.search import search_known
from phonofs.errors import Archived, NoSuchName, ServiceError
from phonofs.fakeservice.account import Account, Item, change
from phonofs.fakeservice.content import ramp
from phonofs.reader.open_object import Handle
from phonofs.search.condition import Condition
from phonofs.search.facets import Facets, facets_of
from phonofs.service.records import parse_record
from phonofs.tree.sanitize import clean
from phonofs.views.places import VIEW_BIT
from tests.model import strategies as s
from tests.model.world import POLL_S, Key, Look, World, reference, run
from tests.support.door_client import Client
from tests.support.s3_in_process import InProcess, door_of

pytestmark = pytest.mark.expected_log("")

STEP = 131_072


class Teller:
    """Tells a story. Owns what was held open, and what the tree may show at the moment.

    moments   the state of each object, at every change since all was well last
    versions  the contents of each object since then, the newest last; ``history`` since ever
    broken    whether errors are no surprise
    numbers   the inode number of each object, from the first time it was seen
    settled   the content that each object had when all was well with it in the tree first
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.held: list[tuple[Handle, Key, list[bytes]]] = []
        self.moments: list[dict[Key, str]] = []
        self.versions: dict[Key, list[bytes]] = {}
        self.history: dict[Key, list[bytes]] = {}
        self.numbers: dict[Key, int] = {}
        self.settled: dict[Key, bytes] = {}
        self.broken = True
        self.begin()

    # what may be shown

    def begin(self) -> None:
        """All is well: what is now counts, and nothing before."""
        self.moments = [self.states()]
        self.versions = {key: [self.world.plain(key)] for key in self.moments[0]}
        for key, (version,) in self.versions.items():
            self.history.setdefault(key, []).append(version)

    def moved(self, key: Key) -> None:
        """An object changed."""
        self.moments.append(self.states())
        self.versions.setdefault(key, []).append(self.world.plain(key))
        self.history.setdefault(key, []).append(self.world.plain(key))
        for _, held, known in self.held:
            if held == key:
                known.append(self.world.plain(key))

    def states(self) -> dict[Key, str]:
        return {(item.region, item.id): item.state for item in self.items}

    def shown(self, every: Callable[[Iterable[bool]], bool]) -> set[tuple[str, Key]]:
        """(Folder, object) of what was to be shown in ``all`` or ``any`` of the moments."""
        states = self.world.look.states
        return {
            (self.world.folder_of(key), key)
            for key in self.moments[-1]
            if every(moment.get(key) in states for moment in self.moments)
        }

    @property
    def items(self) -> list[Item]:
        return list(self.world.account)

    # steps

    async def tell(self, step: Any) -> None:
        await getattr(self, f"_{type(step).__name__.lower()}")(step)
        self.world.check_kernel()

    async def _add(self, step: s.Add) -> None:
        await trio.sleep(1)
        item = step.what.item(updated_ms=self.world.now_ms())
        old = self.world.account.item(item.region, item.id)
        if old is None or old.created_ms == item.created_ms:
            self.world.account.put(item)
            self.moved((item.region, item.id))

    async def _alter(self, step: s.Alter) -> None:
        if not self.items:
            return
        await trio.sleep(1)
        item = self.items[step.n % len(self.items)]
        fields = dict(step.fields)
        if "content" in fields:
            size = fields["content"]
            fields["content"] = ramp(f"{item.id}{size}{self.world.now_ms()}", size)
        if "agent" in fields:
            fields["tags"] = {**item.tags, "agentName": fields.pop("agent")}
        change(self.world.account, item.region, item.id, self.world.now_ms(), **fields)
        self.moved((item.region, item.id))

    async def _list(self, step: s.List) -> None:
        path, ino = "", 1
        for pick in [*step.picks, 0]:
            try:
                entries = await self.world.listing(ino)
            except (ServiceError, NoSuchName):
                return
            self.plausible(path, entries)
            folders = [entry for entry in entries if entry.is_directory]
            if not folders:
                return
            chosen = folders[pick % len(folders)]
            path = f"{path}/{chosen.name}" if path else chosen.name
            ino = chosen.ino

    def plausible(self, path: str, entries: list[Entry]) -> None:
        """Nothing is shown that never was; nothing lacks that was there all the time."""
        below = f"{path}/" if path else ""
        ever, always = self.shown(any), self.shown(all)
        shown: set[str | Key] = set()
        for entry in entries:
            if entry.is_directory:
                inside = f"{below}{entry.name}/"
                region = not path and entry.name in self.world.account.regions
                assert region or any(f"{f}/".startswith(inside) for f, _ in ever), inside
                shown.add(entry.name)
            else:
                key = self.world.key(entry.ino)
                assert (path, key) in ever, f"{path} never held {key}"
                shown.add(key)
        for folder, key in always:
            if folder == path:
                assert key in shown, f"{key} is not shown in {path}"
            elif folder.startswith(below):
                part = folder[len(below) :].split("/")[0]
                assert part in shown, f"{part} is not shown in {path}"

    async def _pick(self, n: int) -> Any:
        try:
            files = sorted((await self.world.tree()).items())
        except (ServiceError, NoSuchName):
            return None
        return files[n % len(files)][1] if files else None

    async def _read(self, step: s.Read) -> None:
        entry = await self._pick(step.n)
        if entry is None:
            return
        try:
            handle = await self.world.app.vfs.open(entry.ino)
        except Archived:
            return
        key = self.world.key(entry.ino)
        try:
            if step.at < 0:
                assert await self.whole(handle, entry.ino) in self.versions[key]
            else:
                await self.read_some(handle, key, self.versions[key], step.at, step.count)
        except ServiceError:
            assert self.broken or len(self.versions[key]) > 1
        finally:
            self.world.app.vfs.release(handle)

    async def whole(self, handle: Handle, ino: int) -> bytes:
        got = b""
        while data := await self.read(handle, len(got), STEP):
            if ino:
                self.world.kernel.pages.setdefault(ino, {})[len(got)] = data
            got += data
        assert len(got) == handle.size
        return got

    async def read(self, handle: Handle, offset: int, count: int) -> bytes:
        vfs = self.world.app.vfs
        begun = trio.current_time()
        lent = vfs.lend_now(handle, offset, count)
        try:
            data = await vfs.read(handle, offset, count) if lent is None else bytes(lent)
        finally:
            assert trio.current_time() - begun <= 20.001, "longer than the read deadline"
        assert len(data) == max(0, min(count, handle.size - offset)), "a short read"
        return data

    async def read_some(
        self, handle: Handle, key: Key, versions: list[bytes], at: float, count: int
    ) -> bytes:
        offset = int(at * handle.size)
        data = await self.read(handle, offset, count)
        assert data in [version[offset : offset + count] for version in versions], key
        return data

    async def _hold(self, step: s.Hold) -> None:
        entry = await self._pick(step.n)
        if entry is None:
            return
        try:
            handle = await self.world.app.vfs.open(entry.ino)
        except Archived:
            return
        key = self.world.key(entry.ino)
        checksum = self.world.app.vfs.attribute(entry.ino, "user.phonofs.checksum")
        known = [md5(version) for version in self.history[key]].index(checksum.decode())
        self.held.append((handle, key, self.history[key][known:]))

    async def _readheld(self, step: s.ReadHeld) -> None:
        """All bytes of an open file are of one version, that of its record or a newer one."""
        if not self.held:
            return
        handle, key, known = self.held[step.n % len(self.held)]
        try:
            data = await self.read_some(handle, key, known, step.at, step.count)
        except ServiceError:
            assert self.broken or len(self.history[key]) > 1
            return
        offset = int(step.at * handle.size)
        known[:] = [each for each in known if each[offset : offset + step.count] == data]

    async def _drop(self, step: s.Drop) -> None:
        if self.held:
            self.world.app.vfs.release(self.held.pop(step.n % len(self.held))[0])

    async def _wait(self, step: s.Wait) -> None:
        await trio.sleep(step.seconds)

    async def _break(self, step: s.Break) -> None:
        note_plan(step.rules)
        self.world.misbehave(step.rules)
        self.broken = True

    async def _settle(self, step: s.Settle) -> None:
        """The faults are over: within a few polls all is exactly as the object list says."""
        self.world.misbehave([])
        await trio.sleep(700)  # the longest pause that anything takes is 600 s
        shown = await self.world.tree(settled=True)
        expected = reference(self.world.account, self.world.look)
        found = {path: self.world.key(entry.ino) for path, entry in shown.items()}
        assert found == expected, set(found.items()) ^ set(expected.items())
        self.broken = False
        self.begin()
        self._check_searches(expected)
        for path, entry in shown.items():
            key = expected[path]
            assert self.numbers.setdefault(key, entry.ino) == entry.ino, "inodes are permanent"
            item = self.world.account.item(*key)
            assert item is not None
            assert entry.archived == (item.state == "ARCHIVED")
            assert entry.size == item.content.size
            self._check_mtime(entry, item)
            await self._whole_file(path, entry, key)
        self.world.check_kernel()
        for key, ino in self.numbers.items():
            self._check_pages(key, ino)
        await self._views(shown)
        await self._by_the_door(shown, expected)
        await self._by_s3(shown, expected)

    async def _by_the_door(self, shown: dict[str, Entry], expected: dict[str, Key]) -> None:
        """A client of the door finds the same, and reads the same bytes."""
        async with trio.open_nursery() as nursery:
            client = Client.of(self.world.app.door, nursery)
            found = {entry.name: entry for entry in await client.find("")}
            contents = await client.cat(list(found))
            await client.close()
        assert {
            path: (entry.ino, entry.size, entry.mtime_ms, entry.state == "ARCHIVED")
            for path, entry in found.items()
        } == {
            path: (entry.ino, entry.size, entry.mtime_ms, entry.archived)
            for path, entry in shown.items()
        }
        for (path, entry), content in zip(found.items(), contents, strict=True):
            assert (entry.region, entry.id) == expected[path]
            if entry.state == "ARCHIVED":
                assert isinstance(content, OSError)
                assert content.errno == errno.ENODATA
            else:
                assert content == self.world.plain(expected[path])

    async def _by_s3(self, shown: dict[str, Entry], expected: dict[str, Key]) -> None:
        """An S3 client lists the same in the order of keys, and gets the same bytes."""
        async with trio.open_nursery() as nursery:
            client = InProcess.of(door_of(self.world.app, self.world.folder), nursery)
            listed = await client.list(most=7)
            assert [each["Key"] for each in listed] == sorted(shown, key=str.encode)
            for each in listed:
                path, entry = each["Key"], shown[each["Key"]]
                assert int(each["Size"]) == entry.size
                assert (each["StorageClass"] == "GLACIER") == entry.archived
                answer = await client.ask(path)
                if entry.archived:
                    assert answer.code == "InvalidObjectState"
                else:
                    assert answer.body == self.world.plain(expected[path])
                    assert answer.headers["etag"] == each["ETag"]
            await client.close()

    async def _views(self, shown: dict[str, Entry]) -> None:
        """Each object is in the view of its day, and in that of its agent, if it has one."""
        vfs = self.world.app.vfs
        found: dict[str, dict[int, Entry]] = {"by-day": {}, "by-agent": {}}
        lines: list[bytes] = []
        for entry in [vfs.entry(1), *await self.world.listing()]:
            try:
                views = await vfs.lookup(entry.ino, ".views")
            except NoSuchName:
                continue
            for view, files in found.items():
                top = await vfs.lookup(views.ino, view)
                for file in await self.world.files_below(top.ino):
                    if file.ino < VIEW_BIT:
                        files[file.ino] = file
                    else:
                        content = await self._list_of_a_day(file.ino)
                        lines += content.splitlines() if file.name == "calls.jsonl" else []
        tree = {entry.ino: (entry.size, entry.mtime_ms, entry.archived) for entry in shown.values()}
        for view, files in found.items():
            seen = {ino: (each.size, each.mtime_ms, each.archived) for ino, each in files.items()}
            expected = tree if view == "by-day" else self._with_agent(tree)
            assert seen == expected, view
        listed = {json.loads(line)["path"] for line in lines}
        assert listed == set(shown)
        assert len(lines) == len(shown)

    def _with_agent(self, tree: dict[int, Any]) -> dict[int, Any]:
        items = self.world.account.item
        return {
            ino: seen
            for ino, seen in tree.items()
            if (item := items(*self.world.key(ino))) and clean(item.tags["agentName"])
        }

    async def _list_of_a_day(self, ino: int) -> bytes:
        vfs = self.world.app.vfs
        size = (await vfs.text_entry(ino)).size
        opened = await vfs.open_text(ino)
        content = opened.read(0, size + 1)
        vfs.close_text(opened)
        assert len(content) == size
        return content

    def _check_searches(self, expected: dict[str, Key]) -> None:
        """A search finds what its condition accepts of the object list, and nothing else."""
        catalogue = self.world.app.catalogue
        facets = {path: self._facets(key) for path, key in expected.items()}
        agents = {each.agent for each in facets.values() if each.agent}
        for condition in (Condition(), *(Condition(agent=agent) for agent in agents)):
            found = [each.path for some in search_known(catalogue, condition) for each in some]
            assert len(found) == len(set(found))
            assert set(found) == {path for path in facets if condition.accepts(facets[path])}

    def _facets(self, key: Key) -> Facets:
        item = self.world.account.item(*key)
        assert item is not None
        return facets_of(parse_record(json.dumps(item.record()).encode(), item.region))

    def _check_mtime(self, entry: Any, item: Item) -> None:
        """createdTime until the content is another one than was seen first, then updatedTime."""
        key = item.region, item.id
        created_ms, updated_ms = (
            ms // 1000 * 1000 for ms in (item.created_ms, item.updated_ms or item.created_ms)
        )
        now = self.world.plain(key)
        if self.settled.setdefault(key, now) != now:
            assert entry.mtime_ms == updated_ms
        elif item.sum and len(set(self.history[key])) == 1:
            assert entry.mtime_ms == created_ms
        else:  # what came and went in between was seen or not
            assert entry.mtime_ms in (created_ms, updated_ms)

    async def _whole_file(self, path: str, entry: Any, key: Key) -> None:
        vfs = self.world.app.vfs
        found = await vfs.lookup(self.world.app.catalogue.parent(entry.ino), entry.name)
        assert found == entry, path
        if entry.archived:
            with pytest.raises(Archived):
                await vfs.open(entry.ino)
            return
        handle = await vfs.open(entry.ino)
        assert await self.whole(handle, entry.ino) == self.world.plain(key), path
        vfs.release(handle)
        size = self.world.app.status.document()["cache"]["disk_bytes"]  # type: ignore[index]
        assert size <= self.world.look.cache_size, "the cap of the cache is hard"

    def _check_pages(self, key: Key, ino: int) -> None:
        item = self.world.account.item(*key)
        if item is None or item.state != "AVAILABLE":
            return
        plain = self.world.plain(key)
        for offset, data in self.world.kernel.pages.get(ino, {}).items():
            assert data == plain[offset : offset + len(data)], "the kernel has old pages"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def note_plan(rules: list[dict[str, Any]]) -> None:
    """So that a failing story can be gone through by hand."""
    if currently_in_test_context():
        note(f"phonofs demo MOUNTPOINT --fault '{json.dumps({'seed': 1, 'rule': rules})}'")


async def told(story: s.Story) -> None:
    account = Account([each.item() for each in story.objects], story.regions)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), account, story.options)
        steps = [*story.steps, s.Settle()]
        look: Look | None = story.look
        teller: Teller | None = None
        while look is not None:
            world.misbehave([])
            async with world.mounted(look):
                teller = teller or Teller(world)
                teller.broken = True
                look = await first_steps(teller, steps)
                for handle, _, _ in teller.held:
                    world.app.vfs.release(handle)
                teller.held.clear()
                await trio.sleep(2 * POLL_S)
                check_gauges(world)


async def first_steps(teller: Teller, steps: list[Any]) -> Look | None:
    """Steps up to the next remount; how to mount then."""
    while steps:
        step = steps.pop(0)
        if isinstance(step, s.Remount):
            return step.look
        await teller.tell(step)
    return None


def check_gauges(world: World) -> None:
    """With all files closed and nothing under way, nothing is held."""
    status = world.app.status.document()
    cache, reader = status["cache"], status["reader"]
    assert cache["pinned"] == 0, cache  # type: ignore[index]
    assert reader["waiters"] == reader["parts"] == 0, reader  # type: ignore[index]


MODEL = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.mark.promise(
    "tree-is-the-account",
    "door-is-the-tree",
    "s3-door-is-the-tree",
    "changes-within-a-poll",
    "listing-whole-or-error",
    "inodes-permanent",
    "one-version-a-handle",
    "failure-takes-nothing-away",
    "cap-is-hard",
    "view-whole-or-error",
    "size-is-the-text-s",
)
@settings(MODEL, max_examples=70)
@given(s.stories(12))
def test_the_tree_is_what_the_object_list_says(story):
    """Bounded, for every change."""
    run(told, story)


@pytest.mark.slow
@settings(MODEL, max_examples=3000)
@given(s.stories(30))
def test_the_tree_for_long(story):
    """Thousands of stories, longer ones."""
    run(told, story)
