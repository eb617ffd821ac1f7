"""What Hypothesis chooses from: objects with names of a tiny alphabet, steps, and faults."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from phonofs.fakeservice.account import Item, flat_item
from phonofs.fakeservice.options import Options
from tests.model.world import NOW_MS, Look
from tests.support.accounts import DELIVERY_METHODS, JSON_TEXT

HOUR_MS = 3_600_000
IDS = [f"{'same' * 2}-{n}" for n in range(4)] + ["otherone-1", "otherone-2"]
SIZES = [0, 1, 4096, 131_072, 131_073, 300_000, 700_001]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]
START_MS = NOW_MS - 80 * HOUR_MS  # in the range, Europe's clocks change on 31 March


@dataclass(frozen=True)
class Born:
    """An object; its fields have few values, so that objects collide."""

    id: str
    hours: int
    size: int
    agent: str = ""
    region: str = "us-east"
    state: str = "AVAILABLE"

    def item(self, updated_ms: int = 0) -> Item:
        created_ms = START_MS + self.hours * HOUR_MS // 2
        return flat_item(
            self.id,
            self.size,
            created_ms,
            region=self.region,
            state=self.state,
            updated_ms=updated_ms or created_ms + 5000,
            name=f"{self.id}.mp3",
            tags={"startTime": str(START_MS), "agentName": self.agent},
        )


def born(regions: tuple[str, ...]) -> st.SearchStrategy[Born]:
    return st.builds(
        Born,
        st.sampled_from(IDS),
        st.integers(0, 150),
        st.sampled_from(SIZES),
        st.sampled_from(["", "A", "a", "../A"]),
        st.sampled_from(regions),
        st.sampled_from(["AVAILABLE"] * 5 + ["ARCHIVED", "REVOKED", "PENDING"]),
    )


# the steps of a story


@dataclass(frozen=True)
class Add:
    what: Born


@dataclass(frozen=True)
class Alter:
    """Change the state, the name, or the content (``size``) of the n-th object."""

    n: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class List:
    """Open directories from the root down, the n-th of each."""

    picks: list[int]


@dataclass(frozen=True)
class Read:
    """Read the n-th file that is shown, all of it or a part."""

    n: int
    at: float = -1.0
    count: int = 0


@dataclass(frozen=True)
class Hold:
    """Open the n-th file that is shown and keep it open."""

    n: int


@dataclass(frozen=True)
class ReadHeld:
    """Read a part of the n-th file that is kept open."""

    n: int
    at: float
    count: int


@dataclass(frozen=True)
class Drop:
    """Close the n-th file that is kept open."""

    n: int


@dataclass(frozen=True)
class Wait:
    seconds: int


@dataclass(frozen=True)
class Break:
    """The service applies these fault rules from now on, or none."""

    rules: list[dict[str, Any]]


@dataclass(frozen=True)
class Remount:
    look: Look


@dataclass(frozen=True)
class Settle:
    """No faults for a while; then the tree equals the reference, and every byte is right."""


N = st.integers(0, 11)
AT, COUNT = st.floats(0, 1), st.sampled_from([1, 4096, 131_072, 400_000])
LOOKS = st.builds(
    Look,
    st.sampled_from(ZONES),
    st.sampled_from([1_200_000, 400_000, 0]),
    st.booleans(),
    st.sampled_from(["off", "off", "session"]),
)
ALTERATIONS = st.one_of(
    st.fixed_dictionaries(
        {"state": st.sampled_from(["AVAILABLE", "AVAILABLE", "ARCHIVED", "REVOKED", "DELETED"])}
    ),
    st.fixed_dictionaries({"agent": st.sampled_from(["", "A", "a"])}),
    st.fixed_dictionaries({"content": st.sampled_from(SIZES)}),
)

HOW = st.one_of(
    st.fixed_dictionaries({"fail": st.just("status"), "status": st.sampled_from([500, 502, 503])}),
    st.just({"fail": "status", "status": 429, "retry_after": 2}),
    st.just({"fail": "html"}),
    st.just({**JSON_TEXT, "body": '{"content": ['}),
    st.just({"fail": "json", "value": []}),
    st.just({"fail": "delay", "seconds": 3}),
    st.just({"fail": "reset"}),
    st.fixed_dictionaries({"fail": st.just("cut"), "after": st.sampled_from([0, 1, 131_072])}),
    st.fixed_dictionaries({"fail": st.just("stall"), "after": st.sampled_from([-1, 0, 5000])}),
    st.just({"fail": "whole"}),
    st.just({"fail": "wrong_range"}),
    st.just({"fail": "encoding"}),
    st.just({"fail": "redirect"}),
    st.just({"fail": "repeat"}),
    st.just({"fail": "endless"}),
    st.just({"fail": "empty"}),
    st.just({"fail": "revoke"}),
    st.just({"fail": "expired"}),
)
FALSE = st.one_of(  # only the checksum finds these faults, so a partial read may return wrong bytes
    st.fixed_dictionaries({"fail": st.just("flip"), "at": st.sampled_from([0, 131_072, 299_999])}),
    st.just({"fail": "short"}),
    st.just({"fail": "long"}),
    st.just({"fail": "overrun"}),
)
KINDS = st.sampled_from([["content", "store"], ["search"], ["content", "search", "presign"], None])


@st.composite
def rule(draw: st.DrawFn, how: st.SearchStrategy[dict[str, Any]] = HOW) -> dict[str, Any]:
    """Draw one rule of a fault plan."""
    made = dict(draw(how))
    kind = draw(KINDS)
    if kind is not None:
        made["kind"] = kind
    when = draw(st.sampled_from(["nth", "probability", "count"]))
    if when == "nth":
        made["nth"] = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    elif when == "count":
        made["count"] = draw(st.integers(1, 4))
    else:
        made["probability"] = draw(st.sampled_from([0.1, 0.3, 0.6]))
    return made


def operations(regions: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(Add, born(regions)),
        st.builds(Alter, N, ALTERATIONS),
        st.builds(List, st.lists(N, max_size=4)),
        st.builds(Read, N),
        st.builds(Read, N, AT, COUNT),
        st.builds(Hold, N),
        st.builds(ReadHeld, N, AT, COUNT),
        st.builds(Drop, N),
        st.builds(Wait, st.sampled_from([1, 10, 61, 700])),
        st.builds(Break, st.lists(rule(), max_size=2)),
        st.builds(Remount, LOOKS),
        st.just(Settle()),
    )


@dataclass(frozen=True)
class Story:
    """An account, how its service answers, and what happens."""

    regions: tuple[str, ...]
    objects: list[Born]
    options: Options
    look: Look
    steps: list[Any] = field(default_factory=list)


def stories(most: int) -> st.SearchStrategy[Story]:
    def of(regions: tuple[str, ...]) -> st.SearchStrategy[Story]:
        return st.builds(
            Story,
            st.just(regions),
            st.lists(born(regions), max_size=6),
            st.builds(
                Options,
                content=st.sampled_from(DELIVERY_METHODS),
                page=st.sampled_from(["object", "array"]),
                total=st.sampled_from(["pages", "records", "absent"]),
                token_life_s=st.sampled_from([20.0, 1799.0]),
            ),
            LOOKS,
            st.lists(operations(regions), max_size=most),
        )

    return st.sampled_from([("us-east",), ("us-east", "uk")]).flatmap(of)
