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


def test_a_row_is_worse_only_if_every_round_is() -> None:
    """One round that reaches the floor acquits the row; no figure convicts none."""
    from phonobench.ratios import Spread, all_below

    assert all_below(Spread.of([0.5, 0.94]), 0.95)
    assert not all_below(Spread.of([0.5, 0.95]), 0.95)
    assert not all_below(None, 0.95)


def _compared(ours: list[float], before: list[float], key: str) -> tuple[str, ...]:
    from phonobench.report import compare
    from phonobench.table import SCALE

    (cells,) = compare(SCALE, {key: {"phonofs": ours, "before": before}}, {})
    return cells


def test_another_checkout_is_compared_by_the_rounds_of_each_row() -> None:
    """Both medians, the ratios of the rounds with their interval, and the verdict."""
    name = "mount to first ls of the root (s)"
    cells = _compared([1.0, 2.0, 4.0], [1.0, 1.0, 1.0], "mount")
    assert cells == ("mount", name, "2", "1", "0.50 (0.25–1.00)", "")
    assert _compared([2.0, 1.1], [1.0, 1.0], "mount")[-1] == "slower"


def test_memory_must_not_be_above_that_of_before() -> None:
    """A fiftieth more in every round is too much for memory, but not for a time."""
    assert _compared([102.0, 103.0], [100.0, 100.0], "peak")[-1] == "above"
    assert _compared([102.0, 100.0], [100.0, 100.0], "peak")[-1] == ""
    assert _compared([100.3, 100.2], [100.0, 100.0], "peak")[-1] == ""
    assert _compared([1.02, 1.03], [1.0, 1.0], "mount")[-1] == ""


def test_the_rows_that_are_worse_are_named() -> None:
    """A row that one of the two checkouts has no figures for is none of them."""
    from phonobench.report import compare, worse
    from phonobench.table import SCALE

    both = {"phonofs": [2.0], "before": [1.0]}
    rows = {"mount": both, "rss": both, "find": {"phonofs": [2.0]}}
    assert worse(compare(SCALE, rows, {})) == "mount (slower), rss (above)"
    assert worse([]) == ""


def test_memory_is_kept_by_round_and_shown_over_all() -> None:
    """Rounds are compared with those of before; the table with rclone has the greatest."""
    from phonobench.bench import Figures
    from phonobench.report import lines

    figures = Figures()
    for round, number in ((0, 50.0), (0, 70.0), (0, 60.0), (1, 40.0)):
        figures.greatest("peak", "phonofs", round, number)
    assert figures.rows["peak"]["phonofs"] == [70.0, 40.0]
    (cells,) = lines(figures.rows, {})
    assert "70" in cells


def test_a_folder_without_the_project_is_no_checkout(tmp_path: Path) -> None:
    """Neither is one that is missing, of another project or with a broken file."""
    from phonobench.before import is_checkout

    assert is_checkout(BENCH.parents[1])
    assert not is_checkout(tmp_path / "missing")
    for text in ('[project]\nname = "other"', "project = 1", "[broken"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert not is_checkout(tmp_path)


def test_what_is_no_checkout_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the usage, and with 2."""
    import phonobench.__main__
    import phonobench.scale

    for main in (phonobench.__main__.main, phonobench.scale.main):
        monkeypatch.setattr(sys, "argv", ["bench", "--before", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.endswith(f"{tmp_path} is not a checkout of phonofs.\n")
        assert said.count("\n") == 1
