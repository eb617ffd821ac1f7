"""Generates the sample account: sixty days of calls up to today. Pure.

The same seed and day always give the same account. It has three to four hundred objects, of every
type the service has; most share their call with others. Some objects are archived, and some are
in states that are not listed. One day has awkward names, another has objects created around
midnight.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

from phonofs.demo import calls
from phonofs.demo.calls import CallFacts
from phonofs.demo.media import whole_frames_ms
from phonofs.demo.sample_data import (
    AGENTS,
    AWKWARD,
    COMMENTS,
    PARTIES,
    QUEUES,
    RARE,
    TOPICS,
    VOICEMAILS,
)
from phonofs.fakeservice.account import CUSTOMER, Account, Item
from phonofs.fakeservice.content import plain

DAYS = 60
ARCHIVED_AFTER = 45
"""Days after which most recordings are archived."""
AWKWARD_DAYS_AGO = 3
MIDNIGHT_DAYS_AGO = 10
RARE_DAYS_AGO = 12


def demo_account(
    today: date,
    *,
    seed: int = 8,
    regions: tuple[str, ...] = ("us-east",),
    until_ms: int | None = None,
    customer_id: str = CUSTOMER,
) -> Account:
    """Return the account as it is on ``today`` (UTC), without objects created after ``until_ms``.

    If there is more than one region, the calls are spread over them.
    """
    return Account(
        (
            replace(item, customer_id=customer_id)
            for item in Dataset(today, seed, regions).items()
            if until_ms is None or item.created_ms <= until_ms
        ),
        regions,
    )


class Dataset:
    """Generates the objects of one account.

    Owns the random generator; its state depends on the order of the calls to it.
    """

    def __init__(self, today: date, seed: int, regions: tuple[str, ...]) -> None:
        self._today = today
        self._seed = seed
        self._regions = regions
        self._chance = random.Random(f"phonofs-demo:{seed}")  # noqa: S311

    def items(self) -> Iterator[Item]:
        """Yield all objects, oldest day first, then the hidden and the rare ones."""
        for ago in reversed(range(DAYS)):
            day = self._today - timedelta(days=ago)
            for item in self._day(day, ago):
                yield self._aged(item, ago)
            if ago == AWKWARD_DAYS_AGO:
                yield from self._awkward(day)
            if ago == MIDNIGHT_DAYS_AGO:
                yield from self._midnight(day)
        yield from self._hidden()
        rare = self._call(self._today - timedelta(days=RARE_DAYS_AGO), 13 * 3600, contact=True)
        for type in RARE:
            yield calls.made(rare, type)

    def _day(self, day: date, ago: int) -> Iterator[Item]:
        number = day.toordinal()
        count = int(number % 4 == 0) if day.weekday() >= 5 else 1 + number % 2
        for at in sorted(self._chance.sample(range(8 * 3600, 18 * 3600), count)):
            call = self._call(day, at)
            yield from self._contact(call) if call.contact else self._work(call)
        if ago % 6 == 2:
            yield from self._voicemail(day, contact=ago % 12 == 2)
        if ago % 14 == 5:
            yield calls.made(self._call(day, 9 * 3600, contact=False), "meeting")

    def _call(
        self, day: date, second: int, *, contact: bool | None = None, party: str | None = None
    ) -> CallFacts:
        """Make a call that begins at this second of the day (UTC)."""
        chance = self._chance
        start = datetime.combine(day, time(), UTC) + timedelta(seconds=second)
        start_ms = int(start.timestamp() * 1000) + chance.randrange(1000)
        if contact is None:
            contact = chance.random() < 0.55
        contact_id = f"int-{start_ms:x}-{chance.getrandbits(64):016x}-phone-00-acmecorp01"
        return CallFacts(
            id=contact_id if contact else str(start_ms + 7),
            contact=contact,
            start_ms=start_ms,
            duration_ms=whole_frames_ms(int(chance.triangular(12_000, 420_000, 60_000))),
            agent=chance.choice(AGENTS),
            party=chance.choice(PARTIES) if party is None else party,
            number=f"+1202555{chance.randrange(100, 200):04d}",
            direction=chance.choice(("INBOUND", "INBOUND", "OUTBOUND")),
            queue=chance.choice(QUEUES),
            topic=chance.choice(TOPICS),
            region=chance.choice(self._regions),
            seed=str(self._seed),
        )

    def _work(self, call: CallFacts) -> Iterator[Item]:
        has_transcripts = self._chance.random() < 0.6
        yield from _recorded(
            call, "callrecording", ("owner", "external") if has_transcripts else ()
        )

    def _contact(self, call: CallFacts) -> Iterator[Item]:
        has_transcript = self._chance.random() < 0.8
        yield from _recorded(call, "callcenterrecording", ("",) if has_transcript else ())
        if has_transcript:
            yield calls.sentiment(call)
            yield calls.made(call, "summary")
        if self._chance.random() < 0.7:
            yield calls.made(call, "agentnotes")
        if self._chance.random() < 0.45:
            yield calls.survey(call)
            said = self._chance.choice(COMMENTS)
            yield from _recorded(call, "voicecommentrecording", said=(said,))
        if self._chance.random() < 0.15:
            yield calls.made(call, "screenrecording")

    def _voicemail(self, day: date, *, contact: bool) -> Iterator[Item]:
        call = self._call(day, self._chance.randrange(3600, 23 * 3600), contact=contact)
        call = replace(call, direction="INBOUND", duration_ms=whole_frames_ms(18_000))
        type, said = (
            "callcentervoicemail" if contact else "voicemail",
            self._chance.choice(VOICEMAILS),
        )
        yield from _recorded(call, type, said=(said,))

    def _awkward(self, day: date) -> Iterator[Item]:
        """Yield a day of calls whose parties have names that are awkward in a file name."""
        for at, party in enumerate(AWKWARD):
            call = self._call(day, 7 * 3600 + at * 300, contact=bool(at % 2), party=party)
            call = replace(call, duration_ms=whole_frames_ms(5_000 + at * 360), direction="INBOUND")
            yield calls.made(call, "callcenterrecording" if call.contact else "callrecording")
            if at % 7 == 0:
                yield replace(calls.made(call, "agentnotes"), name=f"{party}/{party}.agentnotes")
        yield from self._twins(self._call(day, 12 * 3600, contact=False, party="Twin"))

    def _twins(self, call: CallFacts) -> Iterator[Item]:
        """Yield two objects whose file names would be equal, and one of an unknown type."""
        first = calls.made(call, "callrecording")
        yield first
        other = calls.made(replace(call, agent=AGENTS[0], id=f"{call.id}0"), "callrecording")
        yield replace(first, id=first.id[:8] + other.id[8:], content=other.content)
        yield replace(
            first, id=call.new_id("chat"), type="chatlog", name="chat", mime_type="",
            content=plain(b"Hello!\nHello, how can I help?\n"), tags={"callId": call.id},
        )  # fmt: skip

    def _midnight(self, day: date) -> Iterator[Item]:
        """Yield objects created in the first and last seconds of a day and next to it, UTC.

        A recording is made 8 s after its call.
        """
        begin_ms = int(datetime.combine(day, time(), UTC).timestamp() * 1000)
        for at_ms in (-1000, 0, 1000, 86_399_000, 86_400_000):
            call = self._call(day, 0, contact=False, party="Night Shift")
            duration_ms = whole_frames_ms(6_000)
            start_ms = begin_ms + at_ms - 8_000 - duration_ms
            call = replace(call, start_ms=start_ms, duration_ms=duration_ms)
            yield calls.made(call, "callrecording")

    def _aged(self, item: Item, ago: int) -> Item:
        """Return the object, archived if it is an old recording; a quarter stay available."""
        old = ago >= ARCHIVED_AFTER and item.type.endswith("recording")
        return replace(item, state="ARCHIVED") if old and item.id[0] in "0123456789ab" else item

    def _hidden(self) -> Iterator[Item]:
        """Yield objects in states that phonofs does not list."""
        day = self._today - timedelta(days=20)
        for at, state in enumerate(("PENDING", "REVOKED", "DELETED", "FAILED", "QUARANTINED")):
            call = self._call(day, 15 * 3600 + at * 600, contact=True)
            yield replace(calls.made(call, "callcenterrecording"), state=state)


def _recorded(
    call: CallFacts, type: str, speakers: Sequence[str] = ("",), said: Sequence[str] = ()
) -> Iterator[Item]:
    """Yield a recording of this type, and a transcript for each of the speakers."""
    recording = calls.made(call, type)
    yield recording
    for speaker in speakers:
        yield calls.transcript(call, recording, speaker, said)
