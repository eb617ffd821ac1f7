"""The fault plan: which requests fail, and how."""

import json

import pytest
from hypothesis import given, settings, strategies

from phonofs.errors import UsageError
from phonofs.fakeservice.faults import FAILURES, KINDS, Faults, load, plan
from phonofs.fakeservice.responses import Request


def fired(source: str, count: int = 10, kind: str = "content", **asked) -> list[int]:
    """Which of ``count`` equal requests (from 1) a plan of one rule hits."""
    faults = Faults(load(source))
    every = [faults.decide(Request("GET", "/p", kind=kind, **asked)) for _ in range(count)]
    return [at for at, fault in enumerate(every, 1) if fault]


@pytest.mark.parametrize(
    ("select", "wanted"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("nth = 3", [3]),
        ("nth = [1, 10]", [1, 10]),
        ("every = 4", [4, 8]),
        ("skip = 8", [9, 10]),
        ("count = 2", [1, 2]),
        ("skip = 2\ncount = 1", [3]),
        ("probability = 0", []),
        ("probability = 1.0", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ('kind = "search"', []),
        ('kind = ["search", "content"]\nnth = 2', [2]),
        ('path = "/q*"', []),
        ('id = "a*"', []),
    ],
)
def test_a_rule_hits_the_requests_it_names(select, wanted):
    """Every selector, alone and together."""
    assert fired(f'[[rule]]\nfail = "reset"\n{select}') == wanted


def test_chance_is_the_same_every_time():
    """The same seed hits the same requests, another seed others, about as often as asked."""
    source = 'seed = {}\n[[rule]]\nfail = "reset"\nprobability = 0.3'
    first = fired(source.format(1), 1000)
    assert first == fired(source.format(1), 1000)
    assert first != fired(source.format(2), 1000)
    assert 250 < len(first) < 350


def test_the_first_rule_that_fires_decides_and_all_count():
    """Each rule counts what it met and how often it fired, so that a test can assert it."""
    faults = Faults(load('[{"fail": "reset", "nth": 2, "name": "a"}, {"fail": "html"}]'))
    fails = [faults.decide(Request("GET", "/", kind="search")) for _ in range(3)]
    assert [fault and fault.fail for fault in fails] == ["html", "reset", "html"]
    assert faults.met == {"a": 3, "2:html": 3}
    assert faults.fired == {"a": 1, "2:html": 2}


@pytest.mark.parametrize(
    "source",
    ["[[rule]]", '[[rule]]\nfail = "nonsense"', '[[rule]]\nfail = "status"', "rule = 1",
     '[[rule]]\nfail = "reset"\nkinds = "search"', '[[rule]]\nfail = "reset"\nkind = "x"',
     '[[rule]]\nfail = "status"\nstatus = 99', '[[rule]]\nfail = "drip"\nbytes_per_s = 0',
     '[[rule]]\nfail = "headers"\nset = {a = "\\n"}',
     '[[rule]]\nfail = "flip"\nmask = 256', '[[rule]]\nfail = "headers"\nset = {a = 1}',
     '[[rule]]\nfail = "reset"\nevery = 0', '[[rule]]\nfail = "reset"\nnth = "a"',
     '[[rule]]\nfail="reset"\nname="a"\n[[rule]]\nfail="cut"\nname="a"', "{", "a = ", "/no/such",
     '{"rule": [1]}', '{"other": []}', '{"seed": "x"}'],
)  # fmt: skip
def test_a_bad_plan_is_refused_with_its_rule(source):
    """A plan that could not do what was meant is refused before anything runs."""
    with pytest.raises(UsageError, match=r"fault plan|rule"):
        load(source)


def test_a_plan_can_be_a_file(tmp_path):
    """TOML in a file, as ``--fault PLAN`` takes it."""
    path = tmp_path / "plan.toml"
    path.write_text('[[rule]]\nfail = "cut"\nafter = 7\n')
    assert load(str(path)).rules[0]["after"] == 7


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(
            strategies.sampled_from(["rule", "fail", "kind", "nth", "status", "count", "every"]),
            inner,
        )
    ),
)
RULES = strategies.fixed_dictionaries(
    {"fail": strategies.sampled_from(sorted(FAILURES))},
    optional={
        "kind": strategies.sampled_from(sorted(KINDS)) | JSON,
        "nth": JSON,
        "status": JSON,
        "after": JSON,
        "probability": JSON,
    },
)


@settings(max_examples=40, deadline=None)
@given(JSON | strategies.lists(RULES, max_size=3))
def test_any_plan_works_or_is_refused(source):
    """No plan makes the checking or the deciding fail in another way."""
    try:
        faults = Faults(plan(source))
    except UsageError:
        return
    for kind in sorted(KINDS):
        faults.decide(Request("GET", "/", kind=kind))
    assert load(json.dumps(source)) == faults.plan or not faults.plan.rules
