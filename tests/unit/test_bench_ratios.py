"""The benchmark: what is divided by what, and which objects its own origin finds."""

import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from phonofs.fakeservice import fiql
from phonofs.fakeservice.fiql import matches

BENCH = Path(__file__).parents[2] / "contrib" / "bench"


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "phonobench"]:
        del sys.modules[name]


def test_a_ratio_is_how_many_times_better_for_speeds_and_for_times() -> None:
    """More MB/s and fewer seconds both give a ratio above one."""
    from phonobench.ratios import ratios

    assert ratios([20.0], [10.0], faster_is_more=True) == [2.0]
    assert ratios([10.0], [20.0], faster_is_more=False) == [2.0]


def test_only_figures_of_the_same_round_are_divided() -> None:
    """A peer that was measured in fewer rounds is compared in those alone."""
    from phonobench.ratios import ratios

    assert ratios([10.0, 40.0, 1.0], [5.0, 10.0], faster_is_more=True) == [2.0, 4.0]


def test_nothing_measured_is_no_ratio() -> None:
    """No figure, or one of zero, gives none instead of an error or infinity."""
    from phonobench.ratios import Spread, ratios

    assert ratios([], [1.0], faster_is_more=True) == []
    assert ratios([1.0], [0.0], faster_is_more=True) == []
    with pytest.raises(ValueError, match="nothing"):
        Spread.of([])


def test_the_better_peer_is_the_one_with_the_better_median() -> None:
    """One lucky round does not make a mode the better one; an unmeasured mode is none."""
    from phonobench.ratios import better

    speeds = {"off": [10.0, 10.0, 90.0], "full": [20.0, 20.0, 20.0], "tuned": []}
    assert better(speeds, faster_is_more=True) == "full"
    assert better(speeds, faster_is_more=False) == "off"
    assert better({"off": []}, faster_is_more=True) is None


def test_a_target_is_reached_by_the_median() -> None:
    """Neither the best nor the worst round decides; without a target nothing is said."""
    from phonobench.ratios import Spread, reached

    spread = Spread.of([1.0, 2.0, 9.0])
    assert reached(spread, 2.0) == "yes"
    assert reached(spread, 2.5) == "no"
    assert reached(spread, 1.5, at_most=True) == "no"
    assert reached(spread, None) == reached(None, 1.0) == ""


def test_searches_of_a_computed_account_are_those_of_a_kept_one() -> None:
    """The million objects that are computed answer as the same objects kept would."""
    from phonobench.account import Account, Many
    from phonobench.things import DAY_MS, FIRST_DAY_MS, Days

    counts = [3, 1, 5]
    kept, computed = Account(list(Days(counts))), Many(counts)
    start = FIRST_DAY_MS + DAY_MS // 2
    queries = (
        {},
        {"filter": f"createdTime=ge={start};createdTime=lt={start + DAY_MS}"},
        {"filter": f"updatedTime=ge={start}", "sortDirection": "DESC", "limit": "2"},
        {"filter": "objectState==ARCHIVED"},
        {"filter": "type==callrecording,type==voicemail", "pageKey": "4"},
    )
    for query in queries:
        assert kept.page(query) == computed.page(query)
    for folder in ("", "2024", "2024/2024-01", "2024/2024-01/2024-01-03", "none"):
        assert kept.multistatus(folder, "/dav/") == computed.multistatus(folder, "/dav/")


COMPARISONS = strategies.builds(
    fiql.Comparison,
    strategies.sampled_from(["createdTime", "updatedTime"]),
    strategies.sampled_from(["==", "!=", "=gt=", "=ge=", "=lt=", "=le="]),
    strategies.integers(0, 6).map(str),
)
TYPED = strategies.builds(
    fiql.Comparison, strategies.just("type"), strategies.sampled_from(["==", "!="]),
    strategies.sampled_from("ab"),
)  # fmt: skip
EXPRESSIONS = strategies.recursive(
    COMPARISONS | TYPED,
    lambda inner: (
        strategies.builds(fiql.And, strategies.tuples(inner, inner))
        | strategies.builds(fiql.Or, strategies.lists(inner, max_size=3).map(tuple))
    ),
)
OBJECTS = strategies.fixed_dictionaries(
    {
        "createdTime": strategies.integers(0, 6),
        "updatedTime": strategies.integers(0, 6),
        "type": strategies.sampled_from("abc"),
    }
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(EXPRESSIONS, OBJECTS)
def test_what_matches_lies_within_the_span(expression, fields):
    """No object outside the span of a filter can match it."""
    from phonobench.narrowing import span

    low, high = span(expression, "createdTime")
    assert not matches(expression, fields) or low <= fields["createdTime"] < high


@hypothesis.settings(max_examples=60)
@hypothesis.given(EXPRESSIONS, OBJECTS)
def test_putting_in_what_is_known_changes_nothing(expression, fields):
    """A filter with known fields put in means the same for objects that have those."""
    from phonobench.narrowing import given

    left = given(expression, {"type": fields["type"]})
    assert matches(left, fields) == matches(expression, fields)
    assert "type" not in fiql.names(left)
