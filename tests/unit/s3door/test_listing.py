"""Listings have all keys that a client may see, once, in the order of their bytes."""

from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.config import Secret
from phonofs.errors import Unavailable
from phonofs.s3door import listing
from phonofs.s3door.keys import Key
from phonofs.s3door.listing import ListingPage, Wanted, list_page
from tests.unit.s3door.tree import MTIME_MS, Tree

REGIONS = ("us", "us-east", "us.old", "uk", "us0", "ü")
NAMES = ("093000_a.mp3", "093000_a-b.mp3", "0930.json", "é.mp3", "z", "\U0001f600.mp3", "~")


def key(prefixes: tuple[str, ...] = (), types: tuple[str, ...] = ()) -> Key:
    return Key("test", "TEST", Secret("s" * 40), prefixes, frozenset(types))


ALL = key()
slowly = settings(deadline=None)

paths = st.builds(
    lambda region, year, month, day, name: (
        f"{region}/{year}/{year}-{month:02}/{year}-{month:02}-{day:02}/{name}"
    ),
    st.sampled_from(REGIONS),
    st.sampled_from((2023, 2024)),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(NAMES),
)
trees = st.lists(paths, unique=True, max_size=25)
cuts = st.integers(0, 60)
delimiters = st.sampled_from(("", "/", "-", "2024-", "/2023", ".mp3"))


def expected(keys: list[str], wanted: Wanted) -> list[str]:
    """Return keys and common prefixes, worked out from the sorted list of all keys."""
    found: list[str] = []
    for each in sorted(keys, key=str.encode):
        if not each.startswith(wanted.prefix) or each.encode() <= wanted.after.encode():
            continue
        rest = each[len(wanted.prefix) :]
        if wanted.delimiter and wanted.delimiter in rest:
            each = wanted.prefix + rest.partition(wanted.delimiter)[0] + wanted.delimiter
        if each not in (wanted.after, *found[-1:]):
            found.append(each)
    return found


def of(page: ListingPage) -> list[str]:
    """Return keys and common prefixes of a page, in order."""
    return sorted([*(each.key for each in page.objects), *page.prefixes], key=str.encode)


def listed(tree: Tree, wanted: Wanted, opens: Key = ALL) -> list[str]:
    """Return what all pages have together, each of which goes on where the last one ended."""
    found: list[str] = []
    after: str | None = wanted.after
    while after is not None:
        now = Wanted(wanted.prefix, wanted.delimiter, after, wanted.most)
        page = trio.run(list_page, tree, opens, now)
        assert len(of(page)) <= wanted.most
        assert of(page) or page.next is None or page.next > after
        found += of(page)
        after = page.next
    return found


@pytest.mark.promise("s3-door-is-the-tree")
@slowly
@given(trees, paths, cuts, delimiters, paths, cuts, st.integers(1, 9))
def test_the_pages_have_every_key_once_in_the_order_of_bytes(
    keys, prefix, prefix_cut, delimiter, after, after_cut, most
):
    """Whatever the regions, the prefix, the delimiter, the start and the length of a page."""
    wanted = Wanted(prefix[:prefix_cut], delimiter, after[:after_cut], most)
    found = listed(Tree(keys), wanted)
    assert found == expected(keys, wanted)
    assert all(one.encode() < other.encode() for one, other in pairwise(found))


@slowly
@given(trees, st.data(), delimiters, st.integers(1, 9))
def test_a_page_can_begin_behind_any_key_or_common_prefix(keys, data, delimiter, most):
    """As clients do that take the last one of a page for the start of the next."""
    all_of_it = expected(keys, Wanted("", delimiter))
    after = data.draw(st.sampled_from(["", *all_of_it]))
    wanted = Wanted("", delimiter, after, most)
    assert listed(Tree(keys), wanted) == [each for each in all_of_it if each > after]


@pytest.mark.promise("a-key-opens-what-it-may")
@slowly
@given(
    trees,
    st.lists(st.tuples(paths, st.integers(1, 5)), min_size=1, max_size=3),
    delimiters,
    st.integers(1, 9),
)
def test_a_key_sees_what_is_below_its_prefixes_and_nothing_else(keys, made, delimiter, most):
    prefixes = tuple("/".join(path.split("/")[:depth]) for path, depth in made)
    opens = key(prefixes)
    may = [each for each in keys if opens.covers(each)]
    wanted = Wanted("", delimiter, "", most)
    found = listed(Tree(keys), wanted, opens)
    assert {each for each in found if each in keys} == {*expected(may, wanted)} & {*keys}
    assert {*expected(may, wanted)} <= {*found}
    assert all(opens.reaches(each) for each in found)


@pytest.mark.promise("a-key-opens-what-it-may")
@slowly
@given(trees, st.data(), st.sampled_from(("", "/")), st.integers(1, 9))
def test_a_key_sees_objects_of_its_types_only(keys, data, delimiter, most):
    other = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    tree = Tree(keys, dict.fromkeys(other, "transcription"))
    found = listed(tree, Wanted("", "", "", most), key(types=("callrecording",)))
    assert found == expected([each for each in keys if each not in other], Wanted())


DAY = "us/2024/2024-01/2024-01-02"


async def test_an_object_is_listed_with_what_a_head_says():
    tree = Tree([f"{DAY}/a", f"{DAY}/b"], archived=[f"{DAY}/b"])
    first, second = (await list_page(tree, ALL, Wanted(f"{DAY}/"))).objects
    assert (first.key, first.size, first.etag) == (f"{DAY}/a", len(f"{DAY}/a"), '"f2147483648"')
    assert first.modified_ms == MTIME_MS // 1000 * 1000
    assert (first.storage_class, second.storage_class) == ("STANDARD", "GLACIER")


async def test_a_page_lists_no_day_that_it_does_not_need():
    """But the one after it, to know whether it is the last page."""
    tree = Tree([f"us/2024/2024-01/2024-01-{day:02}/a" for day in range(1, 10)])
    page = await list_page(tree, ALL, Wanted(most=2))
    assert page.next == "us/2024/2024-01/2024-01-02/a"
    assert [day[-2:] for day in tree.days_listed] == ["01", "02", "03"]
    tree.days_listed.clear()
    await list_page(tree, ALL, Wanted(most=1, after=page.next))
    assert [day[-2:] for day in tree.days_listed] == ["02", "03", "04"]


async def test_a_page_looks_at_no_more_of_a_day_than_it_shows():
    """Else listing a day would take time by the square of its size."""
    keys = [f"{DAY}/{n:04}" for n in range(3000)]
    tree = Tree(keys)
    first = await list_page(tree, ALL, Wanted())
    assert of(first) == keys[:1000]
    assert tree.looked_at <= 1000 + listing.AT_ONCE
    tree.looked_at = 0
    second = await list_page(tree, ALL, Wanted(after=first.next))
    assert of(second) == keys[1000:2000]
    assert tree.looked_at <= 1000 + listing.AT_ONCE
    tree.looked_at = 0
    assert of(await list_page(tree, ALL, Wanted(f"{DAY}/299"))) == keys[2990:]
    assert tree.looked_at == 10


async def test_common_prefixes_cost_no_listing_of_days():
    tree = Tree([f"us/2024/2024-01/2024-01-{day:02}/a" for day in range(1, 10)])
    page = await list_page(tree, ALL, Wanted("us/2024/2024-01/", "/"))
    assert len(page.prefixes) == 9
    assert tree.days_listed == []


@pytest.mark.parametrize(
    "prefix", ["/", "//", "us//", "us/../us/", "us/2024/./", f"{DAY}/a/", "x/"]
)
async def test_a_prefix_that_leads_nowhere_has_nothing(prefix):
    page = await list_page(Tree([f"{DAY}/a"]), ALL, Wanted(prefix))
    assert (of(page), page.next) == ([], None)


async def test_of_no_keys_there_is_no_next_page():
    page = await list_page(Tree([f"{DAY}/a"]), ALL, Wanted(most=0))
    assert (of(page), page.next) == ([], None)


def test_a_key_that_sees_little_gets_short_pages_and_all_of_it(monkeypatch):
    monkeypatch.setattr(listing, "LOOKED_AT_MAX", 200)
    keys = [f"us/2024/2024-01/2024-01-{day:02}/{n:03}" for day in (1, 2, 3) for n in range(250)]
    tree = Tree(keys, {each: "transcription" for each in keys if not each.endswith("/249")})
    opens = key(types=("callrecording",))
    first = trio.run(list_page, tree, opens, Wanted())
    assert (of(first), first.next) == ([keys[249]], keys[249])
    assert listed(tree, Wanted(), opens) == [each for each in keys if each.endswith("/249")]
    none = trio.run(list_page, tree, key(types=("voicemail",)), Wanted())
    assert (of(none), none.next) == ([], "us/2024/2024-01/2024-01-010")


@pytest.mark.usefixtures("short_pages")
@settings(deadline=None)
@given(trees, st.data(), paths, cuts, delimiters, st.integers(1, 9))
def test_a_page_that_ends_early_names_nothing_that_its_key_may_not_see(
    keys, data, prefix, prefix_cut, delimiter, most
):
    """Names tell who called; where the next page begins is told to the client, too."""
    other = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    tree = Tree(keys, dict.fromkeys(other, "transcription"))
    opens = key(types=("callrecording",))
    wanted = Wanted(prefix[:prefix_cut], delimiter, "", most)
    may = [each for each in keys if each not in other]
    found, after = [], ""
    while after is not None:
        page = trio.run(list_page, tree, opens, Wanted(wanted.prefix, delimiter, after, most))
        found += of(page)
        assert page.next is None or page.next > after
        assert page.next in (None, *found) or page.next[:-1] in {
            each.rpartition("/")[0] for each in keys
        }
        after = page.next
    assert {*expected(may, wanted)} <= {*found}
    assert len(found) == len({*found})
    assert not {*found} & {*other}


@pytest.fixture(scope="module")
def short_pages():
    """Pages end after a few looks, within a day, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "LOOKED_AT_MAX", 2)
        patch.setattr(listing, "AT_ONCE", 1)
        yield


async def test_a_page_ends_in_time_if_its_days_are_empty(monkeypatch):
    """Each of them may have to be asked for; ten years of them are many."""
    tree = Tree([f"us/2024/2024-01/2024-01-{day:02}/a" for day in range(1, 9)])

    async def slow(ino: int) -> bool:
        if tree.names(ino):
            await trio.sleep(8)
            return True
        return False

    tree.open_day = slow
    tree.day_from = lambda *day, behind: []
    first = await list_page(tree, ALL, Wanted())
    assert (of(first), first.next) == ([], "us/2024/2024-01/2024-01-030")
    second = await list_page(tree, ALL, Wanted(after=first.next))
    assert second.next == "us/2024/2024-01/2024-01-060"


@pytest.mark.promise("s3-errors")
async def test_a_day_that_cannot_be_listed_is_an_error_and_no_end():
    tree = Tree([f"{DAY}/a", "us/2024/2024-01/2024-01-03/a"])

    async def away(ino: int) -> None:
        raise Unavailable("the service cannot be reached")

    tree.open_day = away
    with pytest.raises(Unavailable):
        await list_page(tree, ALL, Wanted())
