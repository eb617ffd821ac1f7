"""What is sent over the door is what arrives, and nothing else is understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.door import protocol
from phonofs.door.protocol import NotUnderstood, answer_of, head_length, pack, request_of

PATHS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(0, 2**63 - 1)
ENTRIES = st.builds(
    protocol.Entry,
    PATHS,
    st.sampled_from(["file", "directory"]),
    *[NUMBERS] * 5,
    *[PATHS] * 6,
)
REQUESTS = st.one_of(*[st.from_type(kind) for kind in protocol.Request.__args__])
ANSWERS = st.one_of(
    st.from_type(protocol.Welcome),
    st.builds(protocol.About, ENTRIES),
    st.builds(protocol.Entries, st.lists(ENTRIES, max_size=3)),
    st.from_type(protocol.Opened),
    st.builds(protocol.Data, st.integers(0, protocol.BODY_MAX), st.booleans()),
    st.just(protocol.End()),
    st.builds(protocol.Error, PATHS, PATHS),
)


def head(message: bytes) -> bytes:
    start = protocol.LENGTH.size
    assert head_length(message[:start]) == len(message) - start
    return message[start:]


def encodable(message: object) -> bytes | None:
    """Return a message as it is sent; None for a text that no path can be, or a huge number."""
    try:
        return pack(message)
    except (UnicodeEncodeError, OverflowError):
        return None


@given(REQUESTS)
def test_a_request_arrives_as_it_was_sent(request_):
    sent = encodable(request_)
    assert sent is None or request_of(head(sent)) == request_


@given(ANSWERS)
def test_an_answer_arrives_as_it_was_sent(answer):
    sent = encodable(answer)
    assert sent is None or answer_of(head(sent)) == answer


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_not_understood(received):
    for decoded in (request_of, answer_of):
        try:
            decoded(received)
        except NotUnderstood:
            continue


@pytest.mark.parametrize("length", [0, protocol.HEAD_MAX + 1, 2**32 - 1])
def test_a_head_without_bounds_is_not_understood(length):
    with pytest.raises(NotUnderstood):
        head_length(protocol.LENGTH.pack(length))


@pytest.mark.parametrize("body", [-1, protocol.BODY_MAX + 1])
def test_a_body_without_bounds_is_not_understood(body):
    with pytest.raises(NotUnderstood):
        answer_of(head(pack(protocol.Data(body))))


def test_deeply_nested_bytes_are_not_understood():
    with pytest.raises(NotUnderstood):
        request_of(b"\x82\xa2op\xa4info\xa4path" + b"\x91" * 100_000)
