"""Faults of the service while folders are listed, of tokens and regions: whole, or an error."""

import pytest
import trio

from phonofs.errors import CredentialsRefused, PhonofsError
from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.options import Options
from phonofs.service.auth import DEAD_KEY_PAUSE_S
from tests.fault.scene import KERNEL, RATE, fast, living, outcome, standing, thinned, until
from tests.support.accounts import JSON_TEXT, NOON_MS, flat

pytestmark = pytest.mark.expected_log

DAY_MS = 86_400_000
DEADLINE_S = 5.0
OBJECTS = 330
"""Four pages of a day, and a few days beside it."""

FAULTS = {
    "503": {"fail": "status", "status": 503},
    "429": {"fail": "status", "status": 429, "retry_after": 1},
    "403": {"fail": "status", "status": 403},
    "404": {"fail": "status", "status": 404},
    "400": {"fail": "status", "status": 400},
    "reset": {"fail": "reset"},
    "reset in the body": {"fail": "reset", "after": 2000},
    "cut": {"fail": "cut", "after": 3000},
    "stall": {"fail": "stall"},
    "stall in the body": {"fail": "stall", "after": 500},
    "drip": {"fail": "drip", "bytes_per_s": 50},
    "short": {"fail": "short", "by": 1},
    "long": {"fail": "long", "by": 1},
    "overrun": {"fail": "overrun", "by": 3},
    "html": {"fail": "html"},
    "html 502": {"fail": "html", "status": 502},
    "null": {"fail": "json", "value": None},
    "a number": {"fail": "json", "value": 7},
    "an empty object": {"fail": "json", "value": {}},
    "an empty list": {"fail": "json", "value": []},
    "content that is no list": {"fail": "json", "value": {"content": "x", "lastPage": True}},
    "an error in JSON": {"fail": "json", "value": {"error": "internal", "status": 500}},
    "half a page": {**JSON_TEXT, "body": '{"content": [{"id": "a", "tags": [{"key": '},
    "deep": {**JSON_TEXT, "body": "[" * 100_000},
    "half a string": {**JSON_TEXT, "body": '{"content": ["\\ud8'},
    "endless": {"fail": "endless"},
    "repeat": {"fail": "repeat"},
    "empty pages": {"fail": "empty"},
    "no ids": {"fail": "record", "set": {"id": None}},
    "odd ids": {"fail": "record", "set": {"id": "../../etc/passwd"}},
    "negative sizes": {"fail": "record", "set": {"storedBytes": -1}},
    "huge sizes": {"fail": "record", "set": {"storedBytes": 2**63}},
    "year 9999": {"fail": "record", "set": {"createdTime": "9999-12-31T23:59:59"}},
    "no dates": {"fail": "record", "set": {"createdTime": "soon"}},
    "redirect": {"fail": "redirect"},
    "redirect elsewhere": {"fail": "redirect", "to": "http://127.0.0.2:9/storage"},
}  # fmt: skip
DENIES = {
    "an empty list", "no ids", "odd ids", "negative sizes", "huge sizes", "year 9999",
    "no dates", "empty pages", "an empty object", "content that is no list", "repeat",
}  # fmt: skip
"""Under these the service may say, in all form, that there is less than there is."""


def account():
    """A day of four pages and three days of one object."""
    made = flat(*[1000] * OBJECTS)
    for number in range(1, 4):
        made.put(flat_item(f"old{number}", 500, NOON_MS - number * DAY_MS))
    return made


async def listed(scene):
    """All paths, or the error's name; in time, however often the network has to be asked."""
    try:
        with trio.fail_after(4 * (DEADLINE_S + 1) + 5):  # root, year, month, days
            return set(await scene.walk())
    except PhonofsError as error:
        return type(error).__name__


async def in_the_end(scene, wanted):
    scene.faults()

    async def all_there():
        return await listed(scene) == wanted

    await until(all_there, 200, 6)


async def true_tree(tmp_path, service):
    async with living(service, tmp_path / "truth", poll_interval="0") as scene:
        return set(await scene.tree())


@pytest.mark.parametrize("probability", [1, pytest.param(0.3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", thinned(FAULTS, 4))
@fast
async def test_a_fault_of_listing(tmp_path, name, probability):
    """Either the whole tree or an error in time; never part of a day; in the end all of it."""
    rule = {"kind": "search", "name": "fault", "probability": probability, **FAULTS[name]}
    async with standing(account()) as service:
        wanted = await true_tree(tmp_path, service)
        async with living(service, tmp_path, read_deadline="5s", timeout="1.5s") as scene:
            faults = scene.faults(rule)
            seen = await listed(scene)
            assert faults.fired["fault"]
            assert isinstance(seen, str) or seen == wanted or name in DENIES, sorted(seen)[:5]
            assert isinstance(seen, str) or seen <= wanted
            await in_the_end(scene, wanted)


@pytest.mark.promise("failure-takes-nothing-away")
@pytest.mark.parametrize("name", thinned(FAULTS, 12))
@fast
async def test_a_fault_of_following_takes_nothing_away(tmp_path, name):
    """Whatever the poll is answered: known files stay, can be read, and news come in the end."""
    rule = {"kind": "search", "name": "fault", **FAULTS[name]}
    made = flat(1000, 2000)
    async with (
        standing(made) as service,
        living(service, tmp_path, poll_interval="1s", read_deadline="6s", timeout="2s") as scene,
    ):

        async def followed():
            seen = scene.app.status.document()["catalogue"]["followed"].values()
            return all(region["watermark_ms"] is not None for region in seen)

        await until(followed, 60, 0.5)  # what is listed before that may have to be listed again
        known = await scene.tree()
        faults = scene.faults(rule)
        made.put(flat_item("new", 300, NOON_MS + 3_600_000, updated_ms=service.now_ms()))

        async def fired():
            return faults.fired["fault"] >= 3

        await until(fired, 60, 0.5)
        for ino in known.values():
            assert await outcome(scene, ino, DEADLINE_S) == "right"
        assert set(known) <= set(await scene.tree())
        scene.faults()

        async def news():
            return len(await scene.tree()) == 3

        await until(news, 200, 1)
        assert {name: ino for name, ino in (await scene.tree()).items() if name in known} == known


TOKENS = {
    "503": {"fail": "status", "status": 503},
    "429": {"fail": "status", "status": 429, "retry_after": 1},
    "stall": {"fail": "stall"},
    "reset": {"fail": "reset"},
    "html": {"fail": "html"},
    "other JSON": {"fail": "json", "value": {"error": "x"}},
    "no token": {"fail": "json", "value": {"expires_in": "10"}},
    "dead at once": {"fail": "json", "value": {"access_token": "dead", "expires_in": "0"}},
    "never ends": {"fail": "json", "value": {"access_token": "dead", "expires_in": "9" * 40}},
    "NaN": {**JSON_TEXT, "body": '{"access_token": "dead", "expires_in": NaN}'},
    "refused": {"fail": "status", "status": 401},
    "redirect": {"fail": "redirect", "to": "http://127.0.0.2:9/steal"},
}


@pytest.mark.parametrize("name", thinned(TOKENS, 4))
@fast
async def test_a_fault_of_the_token_endpoint(tmp_path, name):
    """What is cached goes on; the rest fails in time, and comes back by itself."""
    async with (
        standing(flat(1000, 2000), Options(token_life_s=4)) as service,
        living(service, tmp_path, read_deadline="5s", timeout="1s") as scene,
    ):
        cached, other = (await scene.tree()).values()
        assert await outcome(scene, cached, DEADLINE_S) == "right"
        faults = scene.faults({"kind": "token", "name": "fault", **TOKENS[name]})
        service.tokens.revoke()
        assert await outcome(scene, other, 5.0) != "right"
        assert await outcome(scene, cached, 0.5) == "right"
        assert faults.fired["fault"]
        asked = service.counters.requests["token"]
        begun = trio.current_time()
        await trio.sleep(5)
        asked = service.counters.requests["token"] - asked
        assert asked <= 2 + trio.current_time() - begun, "more than a try a second"
        scene.faults()

        async def right():
            return await outcome(scene, other, DEADLINE_S) == "right"

        await until(right, 400, 2)  # a dead key is tried ever more slowly


@pytest.mark.parametrize(
    "name", thinned([*TOKENS, "regions html", "regions json", "regions odd"], 4)
)
@fast
async def test_without_a_token_or_regions_the_first_start_fails_in_time(tmp_path, name):
    """An error of one sentence within the deadline; nothing half made is left behind."""
    odd = {
        "regions html": {"fail": "html"},
        "regions json": {"fail": "json", "value": [{"name": "us"}]},
        "regions odd": {"fail": "json", "value": ["../../x", "us-east"]},
    }
    kind = "regions" if name in odd else "token"
    rule = {"kind": kind, "name": "fault", **(odd | TOKENS)[name]}
    if name == "never ends":
        rule["value"] = {"access_token": "dead", "expires_in": "9" * 40}
    async with standing(flat(10), None, rule) as service:
        begun = trio.current_time()
        with pytest.RaisesGroup(
            pytest.RaisesExc(PhonofsError), allow_unwrapped=True, flatten_subgroups=True
        ):
            async with living(service, tmp_path, patience=0, read_deadline="5s", timeout="1s"):
                pass
        assert trio.current_time() - begun < 5 + 1.0 * RATE
        assert service.faults.fired["fault"]
        service.faults = type(service.faults)()
        async with living(service, tmp_path) as scene:
            assert len(await scene.tree()) == 1


@fast
async def test_tokens_revoked_in_the_middle_of_bodies(tmp_path):
    """All tokens die again and again while 12 MiB are read by several: nobody notices."""
    made = flat(*[3 << 20] * 4)
    async with (
        standing(made, Options(bytes_per_s=1 << 20)) as service,
        living(service, tmp_path, max_connections=6) as scene,
    ):
        files = (await scene.tree()).values()
        faults = scene.faults({"kind": "content", "every": 2, "fail": "revoke", "name": "fault"})
        ends = []

        async def one(ino):
            ends.append(await outcome(scene, ino, 20.0))

        async with trio.open_nursery() as nursery:
            for ino in files:
                nursery.start_soon(one, ino)
        assert faults.fired["fault"]
        assert ends == ["right"] * 4


@pytest.mark.parametrize("way", ["range", "stream"])
@fast
async def test_tokens_that_expire_in_the_middle_of_bodies(tmp_path, way):
    """Bodies take several times the life of a token, which is renewed ahead: nobody notices."""
    options = Options(content=way, bytes_per_s=1 << 20, token_life_s=3)
    async with (
        standing(flat(*[3 << 20] * 3), options) as service,
        living(service, tmp_path, read_deadline="60s") as scene,
    ):
        files = (await scene.tree()).values()
        tokens, begun = service.counters.tokens, trio.current_time()
        for ino in files:
            assert await outcome(scene, ino, 60.0) == "right"
        lives = (trio.current_time() - begun) / options.token_life_s
        assert lives > 2
        # one that nobody used, since its body came all the while, is not renewed ahead
        assert service.counters.tokens - tokens >= int(lives) - 1


@fast
async def test_presigned_links_that_run_out_early(tmp_path):
    """Every link dies between two reads: a new one is asked for, the bytes stay right."""
    options = Options(content="presign", presign_life_s=60)
    async with (
        standing(flat(60 << 20, checksum=""), options) as service,
        living(service, tmp_path) as scene,
    ):
        (ino,) = (await scene.tree()).values()
        truth = scene.truth(ino)
        now_ms, late_ms = service.now_ms, 0
        service.now_ms = lambda: now_ms() + late_ms
        handle = await scene.vfs.open(ino)
        for number in range(6):
            # so far apart that no response that runs on is waited for
            offset = (number * 11 % 7) * (8 << 20)
            data = await scene.piece(handle, offset, KERNEL)
            assert data == truth[offset : offset + KERNEL]
            late_ms += 3_600_000
        scene.vfs.release(handle)
        assert service.counters.statuses[403]
        assert service.counters.requests["presign"] >= 5


@fast
async def test_a_storm_of_429_is_obeyed_and_got_over(tmp_path):
    """Two of three requests are throttled: all is read, and nobody hammers."""
    made = Account(flat(*[50_000] * 20))
    async with standing(made) as service, living(service, tmp_path) as scene:
        files = (await scene.tree()).values()
        rule = {"kind": "content", "fail": "status", "status": 429, "retry_after": 1}
        faults = scene.faults({**rule, "name": "fault", "nth": list(range(1, 40, 2))})
        service.counters.clear()
        ends = []

        async def one(ino):
            ends.append(await outcome(scene, ino, 20.0))

        async with trio.open_nursery() as nursery:
            for ino in files:
                nursery.start_soon(one, ino)
        assert faults.fired["fault"]
        assert set(ends) == {"right"}
        assert service.counters.requests["content"] <= 20 + faults.fired["fault"] + 4


@fast
async def test_a_dead_key_is_said_at_once(tmp_path):
    """A wrong secret is refused, not retried until the deadline: that is after the test's limit."""
    async with standing(flat(1)) as service:
        begun = trio.current_time()
        with pytest.RaisesGroup(
            pytest.RaisesExc(CredentialsRefused), allow_unwrapped=True, flatten_subgroups=True
        ):
            async with living(service, tmp_path, secret="wrong", read_deadline="1h"):
                pass
        pauses = (trio.current_time() - begun) / (0.8 * DEAD_KEY_PAUSE_S)
        assert service.counters.requests["token"] <= 1 + pauses
