"""The made-up account: sixty days of calls up to today. Pure, the same for a seed and a day.

Three to four hundred objects of every type the service has, most of them belonging to a call
with others; some archived, some that are not shown at all, a day of awkward names, a day with
objects at the edges of midnight.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

from phonofs.demo import calls
from phonofs.demo.calls import CallFacts
from phonofs.demo.media import whole_frames_ms
from phonofs.demo.sample_data import AGENTS, AWKWARD, COMMENTS, PARTIES, QUEUES, TOPICS, VOICEMAILS
from phonofs.fakeservice.account import CUSTOMER, Account, Item
from phonofs.fakeservice.content import text

DAYS = 60
ARCHIVED_AFTER = 45
"""Days after which recordings go to cold storage, most of them."""
AWKWARD_DAYS_AGO = 3
MIDNIGHT_DAYS_AGO = 10
RARE_DAYS_AGO = 12
REGION = "us-east"


def demo_account(
    today: date,
    *,
    seed: int = 8,
    regions: tuple[str, ...] = (REGION,),
    until_ms: int | None = None,
    customer_id: str = CUSTOMER,
) -> Account:
    """The account as it is on ``today`` (UTC). ``until_ms``: leave out what was made later.

    With more than one region the calls are spread over them.
    """
    items = Dataset(today, seed, regions).items()
    return Account(
        (
            replace(item, customer_id=customer_id)
            for item in items
            if until_ms is None or item.created_ms <= until_ms
        ),
        regions,
    )


class Dataset:
    """One account in the making. Owns the chances taken so far: order matters."""

    def __init__(self, today: date, seed: int, regions: tuple[str, ...]) -> None:
        self._today = today
        self._seed = seed
        self._regions = regions
        self._chance = random.Random(f"phonofs-demo:{seed}")  # noqa: S311

    def items(self) -> Iterator[Item]:
        """All objects, oldest day first."""
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
        yield from calls.rare(rare)

    def _day(self, day: date, ago: int) -> Iterator[Item]:
        number = day.toordinal()
        count = int(number % 4 == 0) if day.weekday() >= 5 else 1 + number % 2
        for at in sorted(self._chance.sample(range(8 * 3600, 18 * 3600), count)):
            call = self._call(day, at)
            yield from self._contact(call) if call.contact else self._work(call)
        if ago % 6 == 2:
            yield from self._voicemail(day, contact=ago % 12 == 2)
        if ago % 14 == 5:
            yield calls.meeting(self._call(day, 9 * 3600, contact=False))

    def _call(
        self, day: date, second: int, *, contact: bool | None = None, party: str | None = None
    ) -> CallFacts:
        """A call that begins at this second of the day (UTC)."""
        chance = self._chance
        start = datetime.combine(day, time(), UTC) + timedelta(seconds=second)
        start_ms = int(start.timestamp() * 1000) + chance.randrange(1000)
        if contact is None:
            contact = chance.random() < 0.55
        token = f"{chance.getrandbits(64):016x}"
        return CallFacts(
            id=f"int-{start_ms:x}-{token}-phone-00-acmecorp01" if contact else str(start_ms + 7),
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
        recording = calls.work_recording(call)
        yield recording
        if self._chance.random() < 0.6:
            yield calls.transcript(call, recording, "owner")
            yield calls.transcript(call, recording, "external")

    def _contact(self, call: CallFacts) -> Iterator[Item]:
        recording = calls.contact_recording(call)
        yield recording
        spoken = calls.transcript(call, recording)
        if self._chance.random() < 0.8:
            yield spoken
            yield calls.sentiment(call)
            yield calls.summary(call, spoken)
        if self._chance.random() < 0.7:
            yield calls.notes(call)
        if self._chance.random() < 0.45:
            yield calls.survey(call)
            yield from self._comment(call)
        if self._chance.random() < 0.15:
            yield calls.screen_recording(call)

    def _comment(self, call: CallFacts) -> Iterator[Item]:
        comment = calls.voice_comment(call)
        yield comment
        yield calls.transcript(call, comment, "", (self._chance.choice(COMMENTS),), delay_s=120)

    def _voicemail(self, day: date, *, contact: bool) -> Iterator[Item]:
        call = self._call(day, self._chance.randrange(3600, 23 * 3600), contact=contact)
        call = replace(call, direction="INBOUND", duration_ms=whole_frames_ms(18_000))
        message = calls.voicemail(call)
        yield message
        yield calls.transcript(call, message, "", (self._chance.choice(VOICEMAILS),))

    def _awkward(self, day: date) -> Iterator[Item]:
        """A day whose callers have every name that a file name must not have."""
        for at, party in enumerate(AWKWARD):
            call = self._call(day, 7 * 3600 + at * 300, contact=bool(at % 2), party=party)
            call = replace(call, duration_ms=whole_frames_ms(5_000 + at * 360), direction="INBOUND")
            yield calls.contact_recording(call) if call.contact else calls.work_recording(call)
            if at % 7 == 0:
                yield replace(calls.notes(call), name=f"{party}/{party}.agentnotes")
        yield from self._twins(self._call(day, 12 * 3600, contact=False, party="Twin"))

    def _twins(self, call: CallFacts) -> Iterator[Item]:
        """Two objects alike in all that a name is made of, and one of a type nobody knows."""
        first = calls.work_recording(call)
        yield first
        other = calls.work_recording(replace(call, agent=AGENTS[0], id=f"{call.id}0"))
        yield replace(first, id=first.id[:8] + other.id[8:], content=other.content)
        yield replace(
            first, id=call.new_id("chat"), type="chatlog", name="chat", mime_type="",
            content=text("Hello!\nHello, how can I help?\n"), tags={"callId": call.id},
        )  # fmt: skip

    def _midnight(self, day: date) -> Iterator[Item]:
        """Objects made in the last and first seconds of the day, UTC."""
        begin_ms = int(datetime.combine(day, time(), UTC).timestamp() * 1000)
        for at_ms in (-1000, 0, 1000, 86_399_000, 86_400_000):
            call = self._call(day, 0, contact=False, party="Night Shift")
            call = replace(call, duration_ms=whole_frames_ms(6_000))
            made = calls.work_recording(call)
            start = str(begin_ms + at_ms - 9_000)
            tags = {**made.tags, "startTime": start, "endTime": str(begin_ms + at_ms - 3_000)}
            moved_ms = begin_ms + at_ms
            yield replace(made, created_ms=moved_ms, updated_ms=moved_ms, tags=tags)

    def _aged(self, item: Item, ago: int) -> Item:
        """What is old lies in cold storage, unless it is a text."""
        old = ago >= ARCHIVED_AFTER and item.type.endswith("recording")
        return replace(item, state="ARCHIVED") if old and item.id[0] in "0123456789ab" else item

    def _hidden(self) -> Iterator[Item]:
        """Objects in states that nobody lists."""
        day = self._today - timedelta(days=20)
        for at, state in enumerate(("PENDING", "REVOKED", "DELETED", "FAILED", "QUARANTINED")):
            call = self._call(day, 15 * 3600 + at * 600, contact=True)
            yield replace(calls.contact_recording(call), state=state)
