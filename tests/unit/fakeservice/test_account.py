"""Accounts: their objects, and content that is not kept."""

import hashlib
import threading

import pytest
from hypothesis import given, strategies

from phonofs.fakeservice import account as account_module
from phonofs.fakeservice import fiql
from phonofs.fakeservice.account import Account, change, flat_item, iso
from phonofs.fakeservice.content import CHUNK, RAMP, Content, Loop, ramp
from tests.support.fakeservice_caller import BORN_MS, few


@given(
    strategies.binary(max_size=9), strategies.binary(min_size=1, max_size=5),
    strategies.integers(0, 50), strategies.integers(0, 60), strategies.integers(0, 60),
)  # fmt: skip
def test_any_part_of_content_is_that_part_of_the_whole(head, unit, more, start, stop):
    """Reading a part gives what reading everything gives there."""
    whole = head + unit * 60
    content = Content(head, Loop(unit), len(head) + more)
    assert content.read(start, stop) == whole[: content.size][start:stop]


def test_large_content_comes_in_pieces_and_in_order():
    """Pieces never exceed their size, and the checksum is that of the bytes."""
    content = ramp("x", 3 * CHUNK + 17)
    pieces = list(content.pieces(5, content.size))
    assert max(map(len, pieces)) <= CHUNK
    assert b"".join(pieces) == content.read(5, content.size)
    assert content.md5 == hashlib.md5(content.read(0, content.size)).hexdigest()


def test_a_ramp_shows_every_displaced_byte():
    """The next byte always differs, and objects start elsewhere."""
    body = ramp("a", 1000).read(0, 1000)
    assert all(body[at] != body[at + 1] for at in range(999))
    assert body != ramp("b", 1000).read(0, 1000)
    assert len(RAMP.unit) == 251


def test_a_multipart_checksum_is_that_of_the_parts():
    """``-N`` counts the parts; of one part it is the MD5 of the MD5."""
    content = ramp("m", 10)
    parts = [content.read(0, 4), content.read(4, 8), content.read(8, 10)]
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    assert content.multipart(4) == hashlib.md5(digests).hexdigest() + "-3"
    once = hashlib.md5(bytes.fromhex(content.md5)).hexdigest()
    assert content.multipart(10) == once + "-1"


def test_a_search_finds_everything_once_and_in_order():
    """By any field, up or down."""
    account = few(7)
    query = fiql.parse(f"createdTime=ge={BORN_MS}")
    found = account.search("us-east", query)
    assert [each.id for each in found] == [f"o{at}" for at in range(7)]
    assert account.search("us-east", query, "id", descending=True) == found[::-1]


def test_a_change_shows_in_the_next_search():
    """Changed fields, ``updatedTime`` and the results kept for paging."""
    account = few(3)
    assert len(account.search("us-east", fiql.TRUE)) == 3
    assert change(account, "us-east", "o1", BORN_MS + 99_000, state="REVOKED")
    assert not change(account, "us-east", "none", 0)
    [found] = account.search("us-east", fiql.parse("objectState==REVOKED"))
    assert (found.id, found.record()["updatedTime"]) == ("o1", iso(BORN_MS + 99_000))


def test_missing_and_odd_values_can_be_sorted_by():
    """Missing first, numbers by size, then texts."""
    tags = [{}, {"n": "10"}, {"n": "9"}, {"n": "x"}, {"n": "²"}]
    items = [flat_item(str(at), 1, BORN_MS, tags=each) for at, each in enumerate(tags)]
    found = Account(items).search("us-east", fiql.TRUE, "n")
    assert [each.id for each in found] == ["0", "2", "1", "3", "4"]


def test_an_account_may_change_in_another_thread_while_it_is_searched(
    monkeypatch: pytest.MonkeyPatch,
):
    """The search has the objects of before, the next one those of after."""
    account = Account(flat_item(f"{n}", 10, BORN_MS + n) for n in range(3))
    change = threading.Thread(target=account.put, args=(flat_item("new", 10, BORN_MS),))

    def matches(query: fiql.Expression, fields: fiql.Fields) -> bool:
        if change.ident is None:
            change.start()
            change.join(0.05)
        return fiql.matches(query, fields)

    monkeypatch.setattr(account_module, "matches", matches)
    assert len(account.search("us-east", fiql.TRUE)) == 3
    change.join()
    assert len(account.search("us-east", fiql.TRUE)) == 4
