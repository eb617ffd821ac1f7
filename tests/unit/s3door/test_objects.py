"""What a client names is what is there now, by whichever path."""

from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from phonofs.catalogue.catalogue import Entry
from phonofs.s3door.errors import S3Error
from phonofs.s3door.objects import Objects
from phonofs.views.places import VIEW_BIT
from tests.unit.s3door.signers import KEY
from tests.unit.s3door.tree import Tree

DAY = "us/2024/2024-01/2024-01-0"


class LinkedTree(Tree):
    """Has a link, ``views/today``, as views without a dot in their name may have.

    today  the folder that it leads to
    walks  how many paths were walked
    """

    def __init__(self, paths: Iterable[str], today: str) -> None:
        super().__init__(paths)
        self.today = today
        self.walks = 0

    async def walk(self, path: str) -> Entry:
        self.walks += 1
        return await super().walk(path.replace("views/today", self.today))

    def details(self, entries: Iterable[Entry]) -> dict:
        return {each.ino: SimpleNamespace(fingerprint=str(each.ino)) for each in entries}


async def test_a_link_leads_elsewhere_the_day_after() -> None:
    tree = LinkedTree([f"{DAY}1/a", f"{DAY}1/old", f"{DAY}2/a"], today=f"{DAY}1")
    objects = Objects(tree)
    first = await objects.find(KEY, "views/today/a")
    assert first.entry == (await objects.find(KEY, f"{DAY}1/a")).entry
    tree.today = f"{DAY}2"
    second = await objects.find(KEY, "views/today/a")
    assert second.entry == (await objects.find(KEY, f"{DAY}2/a")).entry != first.entry
    with pytest.raises(S3Error) as caught:
        await objects.find(KEY, "views/today/old")
    assert caught.value.code == "NoSuchKey"


async def test_a_folder_is_walked_to_once() -> None:
    tree = LinkedTree([f"{DAY}1/{name}" for name in "abcd"], today=DAY)
    objects = Objects(tree)
    found = [(await objects.find(KEY, f"{DAY}1/{name}")).entry.name for name in "abcd"]
    assert found == ["a", "b", "c", "d"]
    assert tree.walks == 1


FILE = f"{DAY}1/a"
NOTHING = (
    *(f"{DAY}1{end}" for end in ("", "/", "/e", "/.", "/..", "//a")),
    *(f"{FILE}/", f"{FILE}/b", "a", "/a", ".", "/"),
)


@pytest.mark.parametrize("path", NOTHING)
async def test_what_is_no_object_is_not_there(path: str) -> None:
    objects = Objects(LinkedTree([FILE], today=DAY))
    await objects.find(KEY, FILE)
    with pytest.raises(S3Error) as caught:
        await objects.find(KEY, path)
    assert caught.value.code == "NoSuchKey"


async def test_a_text_of_the_views_is_found_without_asking_what_is_above_it() -> None:
    """Its inode number says nothing of a folder of days."""

    class Texts(LinkedTree):
        async def walk(self, path: str) -> Entry:
            return Entry(VIEW_BIT + 1, "a.txt", True, 0, 0, 0, False)

        def parent(self, ino: int) -> Entry:
            raise AssertionError("it was asked")

    with pytest.raises(S3Error) as caught:
        await Objects(Texts([FILE], today=DAY)).find(KEY, ".views/a.txt")
    assert caught.value.code == "NoSuchKey"
