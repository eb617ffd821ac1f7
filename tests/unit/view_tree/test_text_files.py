"""Texts that are made of contents: once for all who wait, and never of what has changed."""

import json
from collections import Counter
from typing import Any

import pytest
import trio

from phonofs.catalogue.catalogue import ChangeSet
from phonofs.errors import CatalogueError, Gone, NoSuchName, PhonofsError, Unavailable
from phonofs.model import Record
from phonofs.texts import forms
from phonofs.tree.layout import directory_of
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.text_files import AHEAD, LARGE, TextFiles
from phonofs.views.names import Manifest, Text, texts
from tests.support.catalogue_world import make, uuid, world

DAY = "2024/2024-09/2024-09-03"
READ_S = 0.5


class FakeReader:
    """Gives the content of each object after a while. ``reads`` counts by object."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.reads = Counter[str]()
        self.error: Exception | None = None
        self.now = self.most = 0

    def open(self, record: Record, ino: int, *, pid: int) -> str:
        return record.id

    async def read(self, handle: str, offset: int, size: int) -> bytes:
        self.reads[handle] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(READ_S)
        self.now -= 1
        if self.error is not None:
            raise self.error
        said = {"utterances": [{"text": f"words of {handle}", "start": 0, "end": 1}]}
        return self.contents.get(handle, json.dumps(said).encode())

    def release(self, handle: str) -> None:
        pass


def a_call(number: int, **changes: Any) -> list[Record]:
    at = f"2024-09-03T10:{number:02}"
    return [
        make(uuid(10 * number), f"{at}:00Z", callId=f"c{number}"),
        make(uuid(10 * number + 1), f"{at}:30Z", kind="transcription", callId=f"c{number}",
             **changes),
    ]  # fmt: skip


async def conversations(index: CallIndex, day: int) -> list[Text]:
    of = directory_of(day)
    assert of is not None
    every = [text for call in await index.calls(of) for _, text in texts(call)]
    return [text for text in every if text.kind.name == "CONVERSATION"]


async def test_a_text_is_made_once_for_all_who_wait(tmp_path):
    async with world(tmp_path, a_call(1)) as here, trio.open_nursery() as nursery:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, reader)
        [text] = await conversations(index, await here.open(DAY))
        with pytest.raises(Unavailable):
            await files.size(text)
        await nursery.start(files.run)
        sizes: list[int] = []

        async def ask() -> None:
            sizes.append(await files.size(text))

        async with trio.open_nursery() as asking:
            for _ in range(5):
                asking.start_soon(ask)
        opened = await files.open(text)
        assert sizes == [len(opened.content)] * 5
        assert reader.reads == {uuid(11): 1}
        assert files.known_sizes([text]) == {text.ino: sizes[0]}
        assert not files.was_resized(text.ino)
        nursery.cancel_scope.cancel()


async def test_each_who_waits_has_an_error_of_its_own(tmp_path):
    async with world(tmp_path, a_call(1)) as here, trio.open_nursery() as nursery:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        reader.error = Unavailable("the service does not answer")
        files = TextFiles(here.catalogue, reader)
        [text] = await conversations(index, await here.open(DAY))
        await nursery.start(files.run)
        errors: list[Unavailable] = []

        async def ask() -> None:
            with pytest.raises(Unavailable, match="does not answer") as caught:
                await files.size(text)
            errors.append(caught.value)

        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(ask)
        assert reader.reads == {uuid(11): 1}
        assert len(set(map(id, errors))) == 3
        nursery.cancel_scope.cancel()


async def test_a_text_asked_for_while_texts_end_is_unavailable(tmp_path):
    async with world(tmp_path, a_call(1)) as here:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, reader)
        [text] = await conversations(index, await here.open(DAY))

        async def ask_until_the_end() -> None:
            with pytest.raises(PhonofsError, match="could not be made"):
                await files.size(text)
            with pytest.raises(Unavailable):
                await files.size(text)

        for _ in range(20):  # trio chooses which of the tasks that may run goes first
            async with trio.open_nursery() as asking, trio.open_nursery() as nursery:
                await nursery.start(files.run)
                asking.start_soon(ask_until_the_end)
                await trio.sleep(READ_S / 2)
                nursery.cancel_scope.cancel()


async def test_what_changes_while_it_is_made_is_given_to_nobody(tmp_path):
    async with world(tmp_path, a_call(1)) as here, trio.open_nursery() as nursery:
        reader, index, told = FakeReader(), CallIndex(here.catalogue), []
        files = TextFiles(here.catalogue, reader, tell_size=told.append)
        await nursery.start(files.run)
        [text] = await conversations(index, await here.open(DAY))
        nursery.start_soon(_change_later, here.catalogue, files)
        with pytest.raises(Gone):
            await files.size(text)
        assert files.known_sizes([text]) == {}
        [text] = await conversations(CallIndex(here.catalogue), await here.open(DAY))
        assert await files.size(text) > 0
        opened = await files.open(text)
        deleted = make(uuid(11), "2024-09-03T10:01:30Z", kind="transcription", callId="c1",
                       updated="2024-09-03T13:00:00Z", state="DELETED")  # fmt: skip
        files.changed(here.catalogue.apply([deleted]))
        with pytest.raises(Gone):
            opened.read(0, 10)
        assert files.known_sizes([text]) == {}
        assert told == [text.ino] * 2  # when it was first opened, and when it changed
        nursery.cancel_scope.cancel()


async def _change_later(catalogue, files: TextFiles) -> None:
    await trio.sleep(READ_S / 2)
    other = make(uuid(11), "2024-09-03T10:01:30Z", kind="transcription", callId="c1",
                 updated="2024-09-03T12:00:00Z", checksum="f" * 32)  # fmt: skip
    files.changed(catalogue.apply([other]))


async def test_the_kernel_is_told_of_another_size(tmp_path):
    async with world(tmp_path, a_call(1, speaker="owner")) as here, trio.open_nursery() as nursery:
        index, told = CallIndex(here.catalogue), []
        files = TextFiles(here.catalogue, FakeReader(), tell_size=told.append)
        await nursery.start(files.run)
        day = await here.open(DAY)
        [text] = await conversations(index, day)
        before = await files.size(text)
        opened = await files.open(text)
        other_side = make(uuid(5), "2024-09-03T10:02:00Z", kind="transcription", callId="c1",
                          speaker="external")  # fmt: skip
        changes: ChangeSet = here.catalogue.apply([other_side])
        index.changed(changes)
        files.changed(changes)
        assert opened.read(0, 5) == opened.content[:5]
        [again] = await conversations(index, day)
        assert again.ino == text.ino
        assert await files.size(again) > before
        assert told == [text.ino] * 2  # when it was first opened, and when it changed
        assert [files.was_resized(text.ino) for _ in range(2)] == [True, False]
        with pytest.raises(Gone):
            opened.read(0, 5)
        nursery.cancel_scope.cancel()


@pytest.mark.expected_log("a form that is not known")
async def test_an_unknown_form_is_remembered(tmp_path):
    async with world(tmp_path, a_call(1)) as here, trio.open_nursery() as nursery:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        reader.contents[uuid(11)] = b"[1]"
        files = TextFiles(here.catalogue, reader)
        await nursery.start(files.run)
        [text] = await conversations(index, await here.open(DAY))
        for _ in range(3):
            with pytest.raises(NoSuchName):
                await files.size(text)
        assert reader.reads == {uuid(11): 1}
        assert files.statistics() == {"making": 0, "unknown_forms": 1}
        nursery.cancel_scope.cancel()


async def test_the_next_texts_are_made_beside_it(tmp_path):
    records = [record for number in range(40) for record in a_call(number)]
    async with world(tmp_path, records) as here, trio.open_nursery() as nursery:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, reader)
        await nursery.start(files.run)
        every = await conversations(index, await here.open(DAY))
        files.make_ahead(every[1:], AHEAD[0])
        await files.size(every[0])
        assert len(reader.reads) == 1 + AHEAD[0]
        await trio.sleep(2 * READ_S)
        assert len(files.known_sizes(every)) == 1 + AHEAD[0]
        files.make_ahead(every, 1000)
        await trio.sleep(2 * READ_S)
        assert len(files.known_sizes(every)) == 1 + AHEAD[0] + AHEAD[-1]
        assert set(reader.reads.values()) == {1}
        nursery.cancel_scope.cancel()


async def test_an_error_is_for_those_who_wait_only(tmp_path):
    async with world(tmp_path, a_call(1)) as here, trio.open_nursery() as nursery:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, reader)
        await nursery.start(files.run)
        [text] = await conversations(index, await here.open(DAY))
        reader.error = Unavailable("away")
        with pytest.raises(Unavailable):
            await files.size(text)
        reader.error = None
        assert await files.size(text) > 0
        nursery.cancel_scope.cancel()


@pytest.mark.expected_log("could not be noted")
@pytest.mark.expected_log("could not be forgotten")
async def test_a_full_disk_leaves_no_withdrawn_text_readable(tmp_path, monkeypatch):
    async with world(tmp_path, a_call(1)) as here, trio.open_nursery() as nursery:
        index, told = CallIndex(here.catalogue), []
        files = TextFiles(here.catalogue, FakeReader(), tell_size=told.append)
        await nursery.start(files.run)
        [text] = await conversations(index, await here.open(DAY))

        def full(*args: object, **kwargs: object) -> None:
            raise CatalogueError("the disk is full")

        for change in ("put", "forget"):
            monkeypatch.setattr(here.catalogue.text_sizes, change, full)
        opened = await files.open(text)
        assert opened.read(0, 5) == opened.content[:5]
        assert files.known_sizes([text]) == {}
        deleted = make(uuid(11), "2024-09-03T10:01:30Z", kind="transcription", callId="c1",
                       updated="2024-09-03T13:00:00Z", state="DELETED")  # fmt: skip
        files.changed(here.catalogue.apply([deleted]))
        with pytest.raises(Gone):
            opened.read(0, 10)
        assert told == [text.ino] * 2  # when it was first opened, and when it changed
        nursery.cancel_scope.cancel()


async def test_a_list_made_while_an_object_was_withdrawn_is_given_to_nobody(tmp_path):
    records = [record for number in range(60) for record in a_call(number % 60)]
    async with world(tmp_path, records) as here, trio.open_nursery() as nursery:
        index = CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, FakeReader())
        await nursery.start(files.run)
        day = directory_of(await here.open(DAY))
        assert day is not None
        [of_calls] = [file for file in await index.manifests(day) if file.name == "calls.csv"]
        assert isinstance(of_calls.text, Manifest)
        deleted = make(uuid(10), "2024-09-03T10:01:00Z", callId="c1", state="DELETED",
                       updated="2024-09-03T13:00:00Z")  # fmt: skip
        outcomes: list[object] = []

        async def ask() -> None:
            try:
                outcomes.append(await files.open(of_calls.text))
            except Gone as error:
                outcomes.append(error)

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            while not files.statistics()["making"]:
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            files.changed(here.catalogue.apply([deleted]))
        assert [type(outcome) for outcome in outcomes] == [Gone]
        nursery.cancel_scope.cancel()


@pytest.mark.expected_log("a form that is not known")
async def test_large_contents_are_read_one_at_a_time(tmp_path):
    records = [record for number in range(6) for record in a_call(number, size=LARGE + 1)]
    sides = [
        make(uuid(900 + n), f"2024-09-03T12:00:0{n}Z", kind="transcription", callId="c0",
             speaker=f"s{n}", size=forms.LARGEST // 2) for n in range(3)
    ]  # fmt: skip
    async with world(tmp_path, [*records, *sides]) as here, trio.open_nursery() as nursery:
        reader, index = FakeReader(), CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, reader)
        await nursery.start(files.run)
        too_large, *every = await conversations(index, await here.open(DAY))
        files.make_ahead(every, 100)
        await trio.sleep(10 * READ_S)
        assert len(files.known_sizes(every)) == 5
        assert reader.most == 1
        with pytest.raises(NoSuchName):
            await files.size(too_large)
        assert reader.reads.total() == 5
        nursery.cancel_scope.cancel()


async def test_few_connections_make_few_texts_ahead(tmp_path):
    records = [record for number in range(20) for record in a_call(number)]
    async with world(tmp_path, records) as here, trio.open_nursery() as nursery:
        index = CallIndex(here.catalogue)
        files = TextFiles(here.catalogue, FakeReader(), most_ahead=3)
        await nursery.start(files.run)
        files.make_ahead(await conversations(index, await here.open(DAY)), 1000)
        assert files.statistics()["making"] == 3
        nursery.cancel_scope.cancel()
