"""The token: one refresh at a time, ahead of its end, and what a dead key means."""

import base64
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trio

from phonofs.config import Secret
from phonofs.errors import (
    CredentialsRefused,
    CredentialsUnreadable,
    Malformed,
    Refused,
    Unavailable,
    UsageError,
)
from phonofs.service.auth import TokenProvider
from tests.support.service_world import API, STORE, Service, connected


async def test_all_wait_for_the_first_token() -> None:
    """Fifty callers, one request to the token endpoint, with key and secret as Basic."""
    service = Service()
    service.token_delay_s = 1
    got = []

    async def ask(keeper: TokenProvider) -> None:
        got.append((await keeper.token()).value)

    async with connected(service) as it, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask, it.keeper)
    assert got == ["token-1"] * 50
    assert service.tokens == 1
    request = service.requests[0]
    assert request.content == b"grant_type=client_credentials"
    basic = request.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"key:s3cret-canary"


async def test_a_minute_of_use_with_a_life_of_3_s() -> None:
    """No 401 is met, and no token is renewed more than once in its life."""
    service = Service()
    service.life_s = "3"
    async with connected(service) as it:
        start = trio.current_time()
        while trio.current_time() < start + 60:
            assert await it.read(0, 10)
            await trio.sleep(0.1)
    assert 20 <= service.tokens <= 60 / (3 * 0.8) + 1
    assert it.keeper.statistics()["rejected"] == 0


async def test_it_is_renewed_ahead_without_anybody_asking() -> None:
    """At about four fifths of its life, so that nobody waits when it ends."""
    service = Service()
    service.life_s = 1000
    async with connected(service) as it:
        await it.keeper.token()
        await trio.sleep(799)
        assert service.tokens == 1
        await trio.sleep(90)
        assert service.tokens == 2


@pytest.mark.parametrize("life_s", [0, "0", "-1", "0.2"])
async def test_a_life_of_nothing_is_not_believed(life_s: object) -> None:
    """The token is used, and neither fetched again at once nor for every request."""
    service = Service()
    service.life_s = life_s
    async with connected(service) as it:
        for _ in range(60):
            assert await it.read(0, 10)
            await trio.sleep(1)
    assert service.tokens == 1


async def test_a_short_life_is_not_renewed_for_nobody() -> None:
    """A mount that nobody uses does not ask for a token each second, for ever."""
    service = Service()
    service.life_s = "1"
    async with connected(service) as it:
        assert await it.read(0, 10)
        await trio.sleep(3600)
        assert service.tokens <= 3
        assert await it.read(0, 10)
    assert service.tokens <= 5


async def test_tokens_that_are_never_accepted_are_asked_for_ever_more_slowly() -> None:
    """401 to everything: a few in the first minute, then one in five minutes; then all is well."""
    service = Service()
    accepts = False
    asked: list[float] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            asked.append(trio.current_time() - start)
        elif not accepts:
            return httpx.Response(401)
        return await service(request)

    start = trio.current_time()
    async with connected(handler) as it:
        while trio.current_time() - start < 3600:
            with pytest.raises(Refused):
                await it.read(0, 10)
            await trio.sleep(1)
        assert len([at for at in asked if at < 60]) <= 10
        assert len([at for at in asked if at > 600]) <= 12
        accepts = True
        assert await it.read(0, 10), "the token there is goes on being tried"
        service.valid.clear()
        await trio.sleep(301)
        assert await it.read(0, 10), "after a quiet while a 401 renews at once"
        await trio.sleep(3)
        service.valid.clear()
        assert await it.read(0, 10)


async def test_renewal_does_not_queue_behind_reads_that_stall() -> None:
    """A store that answers nobody: its readers hold every slot and many wait for one."""
    service = Service("presign")
    service.life_s = "1000"
    renewed: list[float] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            renewed.append(trio.current_time())
        elif str(request.url).startswith(STORE) and len(renewed) == 1 and stalls:
            await trio.sleep_forever()
        return await service(request)

    async def read() -> None:
        with suppress(Unavailable):
            await it.read(0, 10)

    stalls = False
    async with connected(handler, max_connections=4, timeout_s=30) as it:
        assert await it.read(0, 10)
        stalls = True
        await trio.sleep(750)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(read)
            await trio.sleep(245)
            nursery.cancel_scope.cancel()
        assert renewed[1] - renewed[0] < 880 + 31


async def test_a_401_renews_once_for_all_who_met_it() -> None:
    """A token revoked on the other side: sixteen reads meet 401, one refresh, all succeed."""
    service = Service()
    async with connected(service) as it:
        await it.read(0, 10)
        await trio.sleep(5)
        service.valid.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(it.read, 0, 10)
    assert service.tokens == 2
    assert it.keeper.statistics()["rejected"] == 1


async def test_a_401_of_an_old_token_renews_nothing() -> None:
    """Generations tell a late answer from a new refusal."""
    service = Service()
    async with connected(service) as it:
        old = await it.keeper.token()
        await trio.sleep(5)
        it.keeper.reject(old)
        new = await it.keeper.token()
        it.keeper.reject(old)
        assert await it.keeper.token() is new
        assert new.generation == old.generation + 1
    assert service.tokens == 2


@pytest.mark.expected_log("no token")
@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_dead_key_is_said_and_tried_slowly(status: int) -> None:
    """Whoever asks gets the sentence at once; the endpoint is asked a few times in 10 minutes."""
    asked = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(status, json={"error": "invalid_client"})

    async with connected(handler) as it:
        with pytest.raises(CredentialsRefused, match="phonofs login"):
            await it.keeper.token()
        start = trio.current_time()
        with pytest.raises(CredentialsRefused):
            await it.client.regions()
        assert trio.current_time() == start
        await trio.sleep(600)
    assert 3 <= asked <= 7


@pytest.mark.expected_log("no token")
async def test_credentials_are_read_again_before_every_try() -> None:
    """A key that was rotated works without a restart."""
    secret = "old"

    async def credentials() -> tuple[str, Secret]:
        return "key", Secret(secret)

    def handler(request: httpx.Request) -> httpx.Response:
        basic = base64.b64decode(request.headers["authorization"].removeprefix("Basic "))
        if basic != b"key:new":
            return httpx.Response(401)
        return httpx.Response(200, json={"access_token": "t", "expires_in": "1799"})

    async with connected(handler, credentials=credentials) as it:
        with pytest.raises(CredentialsRefused):
            await it.keeper.token()
        secret = "new"
        await trio.sleep(31)
        assert (await it.keeper.token()).value == "t"


@pytest.mark.expected_log("no token")
async def test_retry_now_does_not_wait_for_the_pause() -> None:
    """What SIGHUP means: read the credentials again and try."""
    works = False

    async def credentials() -> tuple[str, Secret]:
        if not works:
            raise UsageError("there is no secret")
        return "key", Secret("x")

    async with connected(Service(), credentials=credentials) as it:
        with pytest.raises(CredentialsUnreadable, match="there is no secret"):
            await it.keeper.token()
        works = True
        await trio.sleep(2)
        it.keeper.retry_now()
        start = trio.current_time()
        await it.keeper.token()
        assert trio.current_time() - start < 1


async def test_an_outage_is_waited_out() -> None:
    """While the valid token lasts nobody notices; then it is an outage; then it works again."""
    service = Service()
    service.life_s = 10
    down = False

    async def handler(request: httpx.Request) -> httpx.Response:
        if down and request.url.path.endswith("token"):
            return httpx.Response(503)
        return await service(request)

    async with connected(handler) as it:
        await it.keeper.token()
        down = True
        await trio.sleep(9.9)
        assert it.keeper.current() is not None
        await trio.sleep(1)
        with pytest.raises(Unavailable, match="503"):
            await it.keeper.token()
        down = False
        await trio.sleep(16)
        assert (await it.keeper.token()).generation >= 2
        assert it.keeper.statistics()["failures"] == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(200, text="<html>"), Malformed),
        (httpx.Response(200, json={}), Malformed),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), Malformed),
        (httpx.Response(429, headers={"Retry-After": "2"}), Unavailable),
        (httpx.Response(200, content=b"x" * 100_000), Malformed),
    ],
)
async def test_other_answers(answer: httpx.Response, kind: type[Exception]) -> None:
    """None of them is a refusal of the key, and a redirect is not followed."""
    hosts = set()

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.add(request.url.host)
        return answer

    async with connected(handler) as it:
        with pytest.raises(kind):
            await it.keeper.token()
    assert hosts == {"api.example.com"}


@pytest.mark.expected_log("lacks the product", "no token")
async def test_a_key_without_the_product_is_told_so() -> None:
    """It is not the secret that is wrong."""

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={"access_token": "t", "expires_in": "9", "api_product_list": "[chat]"}
        )

    async with connected(handler) as it:
        with pytest.raises(CredentialsRefused, match="Call Recordings & Storage"):
            await it.keeper.token()


@pytest.mark.expected_log("no token")
async def test_a_keyring_that_never_answers_holds_nobody_up() -> None:
    """After a minute it is said, and asked again later."""

    async def credentials() -> tuple[str, Secret]:
        await trio.sleep_forever()
        raise AssertionError

    async with connected(Service(), credentials=credentials) as it:
        with pytest.raises(CredentialsUnreadable, match="keyring"):
            await it.keeper.token()


async def test_a_caller_that_gives_up_does_not_end_the_refresh() -> None:
    """The fetch belongs to the keeper's task."""
    service = Service()
    service.token_delay_s = 5
    async with connected(service) as it:
        with trio.move_on_after(1):
            await it.keeper.token()
        await it.keeper.token()
    assert service.tokens == 1


@pytest.mark.expected_log("asking for a token failed")
async def test_a_fault_of_ours_does_not_end_the_task() -> None:
    """It is logged with its traceback, and tried again."""
    faults = [RuntimeError("a bug")]

    async def credentials() -> tuple[str, Secret]:
        if faults:
            raise faults.pop()
        return "key", Secret("x")

    async with connected(Service(), credentials=credentials) as it:
        with pytest.raises(Unavailable):
            await it.keeper.token()
        await trio.sleep(3)
        await it.keeper.token()


async def test_neither_secret_nor_token_shows(caplog: Any) -> None:
    """Not in logs at debug, not in repr, not in statistics, not in errors."""
    service = Service()
    caplog.set_level("DEBUG")
    async with connected(service) as it:
        token = await it.keeper.token()
        await it.read(0, 10)
        shown = f"{token!r} {it.keeper.statistics()} {it.client.statistics()} {caplog.text}"
    for canary in ("token-1", "s3cret-canary", base64.b64encode(b"key:s3cret-canary").decode()):
        assert canary not in shown
    assert API not in caplog.text
