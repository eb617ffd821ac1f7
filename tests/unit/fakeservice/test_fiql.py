"""The filter language of the stand-in."""

import contextlib

import pytest
from hypothesis import given, strategies

from phonofs.fakeservice.fiql import FilterError, matches, parse

OBJECT = {"type": "voicemail", "duration": "36000", "createdTime": 1500, "direction": ""}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("type==voicemail", True),
        ("type!=voicemail", False),
        ("duration=gt=4000", True),  # numbers, not texts
        ("duration=le=36000", True),
        ("createdTime=ge=1500;createdTime=lt=1501", True),
        ("createdTime=gt=1500", False),
        ("type==x,type==voicemail", True),
        ("type==x,type==voicemail;duration=lt=1", False),  # ; binds tighter
        ("(type==x,type==voicemail);duration=gt=1", True),
        ("nothing==1", False),
        ("nothing!=1", True),
        ("type=gt=voice", True),
        ("type=in=(callrecording,voicemail)", True),
        ("type=in=(callrecording)", False),
        ("type=out=(callrecording,voicemail)", False),
        ("type=out=(callrecording,meeting);duration=in=(1,36000)", True),
        ("createdTime=in=(1,1500),type==x", True),
        ("nothing=in=(1)", False),
        ("nothing=out=(1)", True),
    ],
)
def test_filters_mean_what_the_documents_say(text, wanted):
    """Each operator, AND before OR, parentheses, tags and missing tags."""
    assert matches(parse(text), OBJECT) is wanted


@pytest.mark.parametrize(
    "text",
    ["", ";", "a", "a=1", "a==", "==1", "a==1;", "(a==1", "a==1)", "()", "a==1(b==2)",
     "createdTime=ge=2022-01-01", "a=in=", "a=in=()", "a=in=(1", "a=in=(1,)", "a=in=((1))",
     "a=in=(1;2)", "=in=(1)", "a=out=1", "createdTime=in=(1,2022-01-01)",
     "(" * 60 + "a==1" + ")" * 60, "a==" + "x" * 20_000],
)  # fmt: skip
def test_a_bad_filter_is_a_filter_error(text):
    """Whatever cannot be understood is refused by name, also nesting and length."""
    with pytest.raises(FilterError):
        parse(text)


PIECES = [
    "type",
    "createdTime",
    "==",
    "!=",
    "=ge=",
    "=lt=",
    "=in=",
    "=out=",
    ";",
    ",",
    "(",
    ")",
    "1",
    "²",
    "x",
    " ",
]


@given(strategies.one_of(strategies.text(), strategies.lists(strategies.sampled_from(PIECES))))
def test_any_text_parses_or_is_refused(text):
    """The parser is total, and what it parses can be evaluated."""
    with contextlib.suppress(FilterError):
        matches(parse("".join(text)), OBJECT)
