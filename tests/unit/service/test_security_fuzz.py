"""Parsers of what others wrote take anything: they read it, or refuse it in a sentence."""

import json
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phonofs.errors import PhonofsError, ServiceError, UsageError
from phonofs.fakeservice.faults import FAILURES, KINDS, Faults, load
from phonofs.fakeservice.fiql import FilterError, matches, parse
from phonofs.fakeservice.responses import Request
from phonofs.http_dates import http_date_s
from phonofs.process.logging_setup import redact
from phonofs.service.backoff import retry_after_s
from phonofs.service.client import parse_regions
from phonofs.service.content_headers import content_length, content_range
from phonofs.service.oauth import parse_grant
from phonofs.service.presigned import parse_presigned
from phonofs.units import format_duration, format_size, parse_duration, parse_size

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
GRANT_FIELDS = ["access_token", "expires_in", "issued_at", "token_type", "api_product_list"]
GRANTS = st.dictionaries(st.sampled_from(GRANT_FIELDS), JSON)


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@given(st.binary() | JSON.map(encoded) | GRANTS.map(encoded))
@example(b'{"access_token": "a\\r\\nX: y", "expires_in": "1799"}')
def test_any_grant_is_read_or_refused(body):
    """A token that comes out fits into a header, and its life is bounded."""
    try:
        grant = parse_grant(body)
    except PhonofsError:
        return
    assert grant.token.isascii()
    assert grant.token.isprintable()
    assert 0 < grant.life_s < 10**6


@given(st.binary() | JSON.map(encoded))
def test_any_list_of_regions_is_read_or_refused(body):
    """A region that comes out is a plain word: it becomes a part of URLs and a folder."""
    try:
        regions = parse_regions(body)
    except ServiceError:
        return
    assert all(name.isascii() and name.replace("-", "").isalnum() for name in regions)


@given(st.binary() | JSON.map(encoded))
def test_any_presigned_answer_is_read_or_refused(body):
    """Never anything but an address or an error of the service."""
    try:
        url = parse_presigned(body)
    except ServiceError:
        return
    assert url is None or isinstance(url, str) or hasattr(url, "url")


HEADER = st.text(st.characters(max_codepoint=255), max_size=40) | st.builds(
    "bytes {}-{}/{}".format, st.integers(), st.integers(), st.integers() | st.just("*")
)


@given(HEADER)
def test_any_header_is_read_or_left(value):
    """Of a Content-Range that is believed, the numbers agree with each other."""
    span = content_range(value)
    if span is not None:
        assert 0 <= span.start < span.stop
        assert span.total is None or span.stop <= span.total
    length = content_length({"content-length": value})
    assert length is None or length >= 0
    http_date_s(value)
    pause_s = retry_after_s(value, value, datetime.now(UTC).timestamp())
    assert pause_s is None or 0 <= pause_s <= 600


FIQL = st.text(st.sampled_from("abT=!;,()gle<>1.*'\"% \\-+~"), max_size=40) | st.text(max_size=40)


@given(FIQL, st.dictionaries(st.text(max_size=3), st.text() | st.integers(), max_size=4))
def test_any_filter_parses_or_is_refused(text, fields):
    """And what parsed can be asked of any record."""
    try:
        expression = parse(text)
    except FilterError:
        return
    assert matches(expression, fields) in (True, False)


RULES = st.fixed_dictionaries(
    {"fail": st.sampled_from(sorted(FAILURES)) | st.text()},
    optional={
        "kind": st.sampled_from(sorted(KINDS)) | JSON,
        "nth": st.integers() | st.lists(st.integers(), max_size=3) | JSON,
        "probability": st.floats() | JSON,
        "every": st.integers() | JSON,
        "count": st.integers() | JSON,
        "status": st.integers() | JSON,
        "seconds": st.floats() | JSON,
        "path": st.text() | JSON,
    },
)


@given(st.fixed_dictionaries({"rule": st.lists(RULES | JSON, max_size=3)}) | JSON)
def test_any_fault_plan_works_or_is_refused(source: Any):
    """A plan that was taken never fails at a request."""
    try:
        faults = Faults(load(json.dumps({"rule": source} if source is None else source)))
    except UsageError:
        return
    for kind in sorted(KINDS):
        faults.decide(Request("GET", "/x", kind=kind, id="id", region="uk"))


@given(st.text(max_size=60))
def test_any_text_for_a_plan_is_read_or_refused(text):
    """A path, TOML, JSON or none of them."""
    try:
        load(text)
    except UsageError:
        return
    except (tomllib.TOMLDecodeError, OSError) as error:
        pytest.fail(f"{error!r} is not a sentence for a person")


@given(st.text(max_size=30) | st.from_regex(r"[0-9.]{1,12} ?[a-zA-Z]{0,4}", fullmatch=True))
def test_any_size_and_duration_is_read_or_refused(text):
    """And what was read can be written again."""
    for read, write in ((parse_size, format_size), (parse_duration, format_duration)):
        try:
            value = read(text)
        except ValueError:
            continue
        assert write(value)


@given(st.text())
def test_any_line_can_be_redacted(text):
    """What comes out can neither move a cursor nor begin a line of its own colour."""
    line = redact(text)
    assert not any(ord(each) < 32 and each not in "\n\t" for each in line)
    assert "\x7f" not in line
