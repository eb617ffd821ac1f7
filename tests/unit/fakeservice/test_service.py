"""The stand-in, in process: what it gives, what it refuses, how it fails on demand."""

import json

import pytest
import trio

from phonofs.fakeservice.account import change
from phonofs.fakeservice.content import ramp
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.responses import Dropped
from tests.support.fakeservice_caller import BORN_MS, NOW_MS, Caller, body_of, few, logged_in

WHOLE = ramp("o1", 1001).read(0, 1001)


async def test_a_token_is_all_strings():
    """The token's numbers are strings, as the service has them."""
    caller = Caller(few())
    given = await caller.log_in()
    assert given["expires_in"] == "1799"
    assert given["issued_at"] == str(NOW_MS)
    assert given["token_type"] == "BearerToken"
    assert "storage" in given["api_product_list"]
    assert given["access_token"].count(".") == 2
    assert 800 < len(given["access_token"]) < 1000


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"grant_type=client_credentials", 401),
        ({"authorization": "Basic !!!"}, b"grant_type=client_credentials", 401),
        ({"authorization": "Basic YTpi"}, b"grant_type=client_credentials", 401),
        ({"authorization": "Basic ZGVtby1rZXk6ZGVtby1zZWNyZXQ="}, b"", 400),
        ({"authorization": "Basic ZGVtby1rZXk6ZGVtby1zZWNyZXQ="}, b"grant_type=password", 400),
    ],
)
async def test_wrong_credentials_get_no_token(headers, body, status):
    """Nothing, nonsense, another key, another grant."""
    caller = Caller(few())
    form = "application/x-www-form-urlencoded"
    answer = await caller.send("POST", "/oauth/v2/token", body, content_type=form, **headers)
    assert answer.status == status
    assert caller.service.counters.tokens == 0


async def test_a_token_dies_when_its_life_is_over():
    """Good until then, 401 from then on."""
    caller = await logged_in(few(), token_life_s=3)
    await trio.sleep(2.9)
    assert (await caller.send("GET", "objects")).status == 200
    await trio.sleep(0.1)
    assert (await caller.send("GET", "objects")).status == 401


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/storage/mars/v3/objects", 404),
        ("GET", "objects/none", 404),
        ("GET", "objects/none/content", 404),
        ("DELETE", "objects/o1", 405),
        ("POST", "objects", 405),
        ("DELETE", "bulk", 403),
        ("GET", "objects?limit=1001", 400),
        ("GET", "objects?limit=0", 400),
        ("GET", "objects?limit=x", 400),
        ("GET", "objects?pageKey=-1", 400),
        ("GET", "objects?sortDirection=UP", 400),
        ("GET", "objects?filter=createdTime=ge=2022-11-01T21:22:22", 500),
        ("GET", "objects?filter=createdTime=ge=1;type", 400),
        ("GET", "objects/o1/content?presignUrl=maybe", 400),
        ("GET", "objects/o1/content?presignUrl=true&presignTtlSeconds=soon", 400),
        ("POST", "objects/o1/restore", 400),
        ("POST", "bulk/download/start", 404),
        ("GET", "buckets", 404),
    ],
)
async def test_what_the_service_would_refuse_is_refused(method, url, status):
    """Unknown paths, regions, objects, methods and parameters; deleting above all."""
    caller = await logged_in(few())
    assert (await caller.send(method, url)).status == status
    assert len(caller.service.account) == 5


async def test_without_a_token_nothing_is_given():
    """Every path of the storage demands one."""
    caller = Caller(few())
    for url in ("regions", "objects", "objects/o1", "objects/o1/content"):
        assert (await caller.send("GET", url)).status == 401


async def test_a_page_says_where_the_next_begins():
    """``pageKey`` is an offset, incremented on the last page too; only ``lastPage`` ends."""
    caller = await logged_in(few(5))
    first = await caller.get("objects", limit=3)
    last = await caller.get("objects", limit=3, pageKey=first["pageKey"])
    assert [(p["pageKey"], p["lastPage"], p["pageSize"]) for p in (first, last)] == [
        (3, False, 3), (6, True, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("total", "said"), [("pages", 3), ("records", 7), ("absent", None)])
async def test_total_counts_pages_or_records_or_is_absent(total, said):
    """The documents say pages; other readings are an option."""
    caller = await logged_in(few(7), total=total)
    assert (await caller.get("objects", limit=3)).get("total") == said


async def test_total_of_nothing_is_none():
    """No page at all where nothing matches."""
    caller = await logged_in(few(7))
    page = await caller.get("objects", filter="type==none")
    assert (page["total"], page["lastPage"], page["content"]) == (0, True, [])


async def test_what_public_clients_send_is_answered():
    """Pages of 200 and 1000; name and size as fields; sets; a tag beside a type; a pageKey of 0."""
    account = few(5)
    change(account, "us-east", "o1", NOW_MS, type="transcription",
           tags={"sourceObjectType": "callrecordingchannel"})  # fmt: skip
    caller = await logged_in(account)

    async def ids(text: str, **query: object) -> list[str]:
        page = await caller.get("objects", filter=text, pageKey=0, **query)
        return [record["id"] for record in page["content"]]

    assert len(await ids("createdTime=gt=0", limit=200)) == 5
    assert len(await ids("createdTime=gt=0", limit=1000)) == 5
    assert await ids("name==o2.mp3") == ["o2"]
    assert await ids("size=ge=1003", sortField="size", sortDirection="DESC") == ["o4", "o3"]
    assert await ids("objectName=in=(o0.mp3,o3.mp3)") == ["o0", "o3"]
    assert await ids("name=out=(o0.mp3,o1.mp3,o2.mp3,o3.mp3)") == ["o4"]
    assert await ids("type!=callrecording") == ["o1"]
    assert await ids("type==transcription;sourceObjectType==callrecordingchannel") == ["o1"]


async def test_the_strict_reading_is_an_option():
    """Pages of 1 to 100 only."""
    caller = await logged_in(few(5), page_limit=100)
    assert (await caller.send("GET", "objects?limit=101")).status == 400
    assert (await caller.send("GET", "objects?limit=100")).status == 200


async def test_only_available_objects_unless_states_are_named():
    """Others come when the filter speaks of states; what was purged cannot be asked for."""
    account = few(3)
    change(account, "us-east", "o1", NOW_MS, state="ARCHIVED")
    change(account, "us-east", "o2", NOW_MS, state="DELETED")
    caller = await logged_in(account, total="records")
    assert (await caller.get("objects"))["total"] == 1
    states = "(objectState==AVAILABLE,objectState==ARCHIVED)"
    assert (await caller.get("objects", filter=states))["total"] == 2
    assert (await caller.send("GET", "objects/o2")).status == 404
    assert (await caller.send("GET", "objects/o1/content")).status == 403


async def test_the_other_readings_of_the_documents():
    """Sizes as strings, a page in an array, no total, a limit that is lowered."""
    caller = await logged_in(
        few(5), sizes="string", page="array", total="absent", page_limit=2, over_limit="lower"
    )
    [page] = await caller.get("objects", limit=100)
    assert page["content"][0]["storedBytes"] == "1000"
    assert "total" not in page
    assert page["pageSize"] == 2


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=900-", 206, 900, 1001),
        ("bytes=900-5000", 206, 900, 1001),
        ("bytes=-1", 206, 1000, 1001),
        ("bytes=-5000", 206, 0, 1001),
        ("bytes=5-2", 200, 0, 1001),
        ("bytes=1-2,5-6", 200, 0, 1001),
        ("lines=1-2", 200, 0, 1001),
    ],
)
async def test_ranges(wanted, status, start, stop):
    """Ranges as RFC 9110 has them; what is not one gives the whole."""
    caller = await logged_in(few())
    answer = await caller.send("GET", "objects/o1/content", range=wanted)
    assert answer.status == status
    assert await body_of(answer) == WHOLE[start:stop]
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1001"


async def test_a_range_beyond_the_end_is_416():
    """It says how long the object is."""
    caller = await logged_in(few())
    answer = await caller.send("GET", "objects/o1/content", range="bytes=1001-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1001")


async def test_if_range_gives_the_whole_when_the_content_changed():
    """The same ETag: the part. Another one: everything."""
    caller = await logged_in(few())
    whole = await caller.send("GET", "objects/o1/content")
    headers = {"range": "bytes=5-", "if_range": whole.headers["ETag"]}
    assert (await caller.send("GET", "objects/o1/content", **headers)).status == 206
    headers["if_range"] = '"other"'
    assert (await caller.send("GET", "objects/o1/content", **headers)).status == 200


@pytest.mark.parametrize("shape", ["object", "string", "text"])
async def test_a_presigned_url_leads_to_another_origin(shape):
    """It has ranges, refuses a token, and dies; its signature is of its path and time."""
    caller = await logged_in(few(), content="presign", presign_answer=shape)
    plain = await caller.send("GET", "objects/o1/content", range="bytes=5-9")
    assert plain.status == 200
    body = (await body_of(await caller.send("GET", "objects/o1/content?presignUrl=true"))).decode()
    address = body if shape == "text" else json.loads(body)
    url = address["url"] if shape == "object" else address
    assert url.startswith(caller.service.store_url)
    answer = await caller.send("GET", url, bearer=False, range="bytes=5-9")
    assert (answer.status, await body_of(answer)) == (206, WHOLE[5:10])
    assert (await caller.send("GET", url)).status == 400
    for forged in (url.replace("o1", "o2"), url.replace("dies=1", "dies=2"), url[:-1], url + "é"):
        assert (await caller.send("GET", forged, bearer=False)).status == 403
    caller.now_ms += 1800_000
    assert (await caller.send("GET", url, bearer=False)).status == 403
    assert caller.service.counters.bearers("store") == 1


async def link_to(caller: Caller, id: str = "o1", **query: object) -> str:
    """A presigned URL."""
    link: str = (await caller.get(f"objects/{id}/content", presignUrl="true", **query))["url"]
    return link


@pytest.mark.parametrize(
    ("token", "with_token", "without"),
    [("refuse", 400, 206), ("ignore", 206, 206), ("want", 206, 401)],
)
async def test_a_presigned_url_can_lie_on_the_api_host(token, with_token, without):
    """As the only published one does; with a token it is refused, taken, or wanted."""
    caller = await logged_in(few(), content="presign", presign_host="api", presign_token=token)
    url = await link_to(caller)
    assert url.startswith(f"{caller.service.url}/storage/us-east/")
    assert "X-Amz-Expires=1800" in url
    answers = [await caller.send("GET", url, bearer=b, range="bytes=5-9") for b in (True, False)]
    assert [answer.status for answer in answers] == [with_token, without]
    assert WHOLE[5:10] in [await body_of(answer) for answer in answers]
    forged = await caller.send("GET", url.replace("o1", "o2"), bearer=token == "want")
    assert forged.status == 403
    caller.service.faults = Faults(load('[[rule]]\nkind = "presign"\nfail = "expired"'))
    dead = await link_to(caller)
    assert dead.startswith(caller.service.url)
    assert (await caller.send("GET", dead, bearer=token == "want")).status == 403


async def test_a_client_can_say_how_long_a_url_lives():
    """``presignTtlSeconds``, in place of the half hour."""
    caller = await logged_in(few())
    url = await link_to(caller, presignTtlSeconds=60)
    assert "X-Amz-Expires=60" in url
    caller.now_ms += 59_000
    assert (await caller.send("GET", url, bearer=False)).status == 200
    caller.now_ms += 1_000
    assert (await caller.send("GET", url, bearer=False)).status == 403


async def test_redirect_and_stream():
    """A redirect leads to the store; a stream has neither ranges nor URLs."""
    caller = await logged_in(few(), content="redirect")
    answer = await caller.send("GET", "objects/o1/content")
    assert answer.status == 302
    assert answer.headers["Location"].startswith(caller.service.store_url)
    caller = await logged_in(few(), content="stream")
    assert (await caller.send("GET", "objects/o1/content?presignUrl=true")).status == 403
    assert (await caller.send("GET", "objects/o1/content", range="bytes=5-9")).status == 200


async def test_an_archived_object_comes_back_after_a_while():
    """Restoring takes its time, and moves ``updatedTime``."""
    account = few(2)
    change(account, "us-east", "o1", BORN_MS, state="ARCHIVED")
    caller = await logged_in(account, restore_s=60)
    assert (
        await caller.send("POST", "objects/o1/restore", b'{"expirationDays": 11}')
    ).status == 400
    answer = await caller.send("POST", "objects/o1/restore", b'{"expirationDays": 3}')
    assert (answer.status, await body_of(answer)) == (200, b'{"expirationDays": 3}')
    assert (await caller.get("objects/o1"))["objectState"] == "ARCHIVED"
    await trio.sleep(60)
    assert (await caller.get("objects/o1"))["objectState"] == "AVAILABLE"


async def test_counters_know_which_bytes_went_out():
    """Each byte of each object, and how many went out twice."""
    caller = await logged_in(few())
    for wanted in ("bytes=0-99", "bytes=50-149"):
        await body_of(await caller.send("GET", "objects/o1/content", range=wanted))
    sent = caller.service.counters.of("us-east", "o1")
    assert (list(sent.ranges), sent.bytes, sent.twice) == ([(0, 150)], 200, 50)
    assert caller.service.counters.requests["content"] == 2


async def test_latency_and_speed_take_their_time():
    """A pause before each answer, and a body that drips."""
    caller = await logged_in(few(), latency_s=2, bytes_per_s=100)
    before = trio.current_time()
    assert await body_of(await caller.send("GET", "objects/o1/content")) == WHOLE
    assert trio.current_time() - before == pytest.approx(12.01, abs=0.1)


async def test_more_requests_than_it_takes_in_a_window_are_refused_until_its_end():
    """Those for a token do not count, and are not refused."""
    caller = await logged_in(few(), most_requests=3, window_s=20)
    await trio.sleep(100)
    statuses = [(await caller.send("GET", "objects")).status for _ in range(3)]
    await trio.sleep(5.5)
    answer = await caller.send("GET", "objects/o1/content")
    assert [*statuses, answer.status] == [200, 200, 200, 429]
    assert answer.headers["Retry-After"] == "15"
    await caller.log_in()
    await trio.sleep(14.5)
    assert (await caller.send("GET", "objects")).status == 200


async def failing(fault: str, url: str = "objects/o1/content", **headers: str):
    """The answer to one request of which everything but the token fails that way."""
    kinds = '["content", "search", "record", "presign", "store", "regions"]'
    caller = await logged_in(few(), f"[[rule]]\nname = 'it'\nkind = {kinds}\n{fault}")
    answer = await caller.send("GET", url, **headers)
    assert caller.service.faults.fired["it"] == 1
    return caller, answer


async def test_faults_in_place_of_an_answer():
    """A status with Retry-After, a gateway's page, other JSON, half a text, a redirect."""
    _, answer = await failing('fail = "status"\nstatus = 429\nretry_after = 7')
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    _, answer = await failing('fail = "html"')
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    _, answer = await failing('fail = "json"\nvalue = [1, 2]')
    assert json.loads(await body_of(answer)) == [1, 2]
    _, answer = await failing("fail = 'status'\nstatus = 200\nbody = '{\"a'")
    assert await body_of(answer) == b'{"a'
    _, answer = await failing('fail = "redirect"\nto = "http://10.0.0.1/"')
    assert answer.headers["Location"] == "http://10.0.0.1/"
    caller, answer = await failing('fail = "redirect"', "objects?limit=2")
    assert answer.headers["Location"] == f"{caller.service.url}/storage/us-east/v3/objects?limit=2"


async def test_faults_of_the_connection():
    """Cut, reset and stalled after so many bytes, or before the first."""
    for fault, reset in (('fail = "cut"\nafter = 10', False), ('fail = "reset"\nafter = 10', True)):
        caller, answer = await failing(fault)
        pieces = answer.pieces()
        assert await anext(pieces) == WHOLE[:10]
        with pytest.raises(Dropped) as dropped:
            await anext(pieces)
        assert dropped.value.reset is reset
        assert caller.service.counters.of("us-east", "o1").bytes == 10
    _, answer = await failing('fail = "reset"')
    with pytest.raises(Dropped):
        await answer.begin()
    _, answer = await failing('fail = "stall"\nafter = 3')
    with trio.move_on_after(3600) as waiting:
        await body_of(answer)
    assert waiting.cancelled_caught


@pytest.mark.parametrize(
    ("fault", "status", "content_range", "body"),
    [
        ('fail = "short"\nby = 3', 206, "bytes 10-19/1001", WHOLE[10:17]),
        ('fail = "long"\nby = 3', 206, "bytes 10-19/1001", WHOLE[10:23]),
        ('fail = "overrun"', 206, "bytes 10-19/1001", WHOLE[10:20] + b"\xa5"),
        ('fail = "wrong_range"\nby = 5', 206, "bytes 15-24/1001", WHOLE[15:25]),
        ('fail = "whole"', 200, None, WHOLE),
        ("fail = 'headers'\nset = {ETag = '\"changed\"'}", 206, "bytes 10-19/1001", WHOLE[10:20]),
        ('fail = "flip"\nat = 12', 206, "bytes 10-19/1001",
         WHOLE[10:12] + bytes([WHOLE[12] ^ 255]) + WHOLE[13:20]),
        ('fail = "flip"\nat = 20', 206, "bytes 10-19/1001", WHOLE[10:20]),
    ],
)  # fmt: skip
async def test_faults_of_a_body(fault, status, content_range, body):
    """Shorter, longer, elsewhere, whole, changed: exactly as the plan says."""
    _, answer = await failing(fault, range="bytes=10-19")
    assert answer.status == status
    assert answer.headers.get("Content-Range") == content_range
    assert await body_of(answer) == body
    assert (answer.headers["ETag"] == '"changed"') == ("ETag" in fault)


async def test_a_body_longer_than_its_object():
    """Beyond the end of a ramp comes more of the ramp, beyond a text comes filling."""
    _, answer = await failing('fail = "long"\nby = 9')
    assert await body_of(answer) == ramp("o1", 1010).read(0, 1010)
    _, answer = await failing('fail = "long"\nby = 2', "regions")
    assert await body_of(answer) == b'["us-east"]\xa5\xa5'


async def test_a_body_compressed_unasked():
    """Content-Encoding although identity was asked for."""
    _, answer = await failing('fail = "encoding"')
    assert answer.headers["Content-Encoding"] == "gzip"
    assert (await body_of(answer))[:2] == b"\x1f\x8b"


async def test_faults_of_pages():
    """Endless, repeated, empty pages, and odd fields in every record."""
    for url in ("objects?limit=3&pageKey=3", "objects?limit=3&pageKey=9"):
        _, answer = await failing('fail = "endless"', url)
        page = json.loads(await body_of(answer))
        assert page["content"]
        assert not page["lastPage"]
    _, answer = await failing('fail = "repeat"', "objects?limit=3&pageKey=3")
    assert json.loads(await body_of(answer))["content"][0]["id"] == "o0"
    _, answer = await failing('fail = "empty"', "objects?limit=3")
    page = json.loads(await body_of(answer))
    assert (page["content"], page["lastPage"]) == ([], False)
    caller, answer = await failing('fail = "record"\nset = {storedBytes = -1}', "objects?limit=1")
    assert json.loads(await body_of(answer))["content"][0]["storedBytes"] == -1
    assert (await caller.get("objects/o1"))["storedBytes"] == -1
    _, answer = await failing('fail = "record"\nset = {storedBytes = -1}')
    assert await body_of(answer) == WHOLE


async def test_headers_can_be_set_and_taken_out():
    """Over those of the answer, whatever it is."""
    set_ = '{ETag = "W/x", "Content-Range" = "Bytes 0-9/10"}'
    _, answer = await failing(f'fail = "headers"\nset = {set_}', range="bytes=0-9")
    assert answer.headers["ETag"] == "W/x"
    assert answer.headers["Content-Range"] == "Bytes 0-9/10"
    plan = '[{"fail": "headers", "set": {"ETag": null}, "kind": "content"}]'
    caller = await logged_in(few(), plan)
    assert "ETag" not in (await caller.send("GET", "objects/o1/content")).headers


async def test_a_part_answered_with_200():
    """It says which part it is, in a header that a 200 should not have."""
    _, answer = await failing('fail = "as_200"', range="bytes=10-19")
    assert (answer.status, answer.headers["Content-Range"]) == (200, "bytes 10-19/1001")
    assert await body_of(answer) == WHOLE[10:20]


async def test_waiting_can_be_asked_of_one_object_or_of_the_token_alone():
    """``Retry-After`` for what a rule names; all else is answered."""
    status = "fail = 'status'\nstatus = 503\nretry_after = 86400"
    caller = await logged_in(few(), f"[[rule]]\nid = 'o1'\n{status}")
    answer = await caller.send("GET", "objects/o1/content")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "86400")
    assert (await caller.send("GET", "objects/o2/content")).status == 200
    with pytest.raises(AssertionError):
        await logged_in(few(), f"[[rule]]\nkind = 'token'\n{status}")


async def test_tokens_revoked_in_the_middle_and_urls_dead_from_birth():
    """The request goes on, the next one meets 401; the URL meets 403."""
    caller, answer = await failing('fail = "revoke"')
    assert await body_of(answer) == WHOLE
    assert (await caller.send("GET", "objects")).status == 401
    caller, answer = await failing('fail = "expired"', "objects/o1/content?presignUrl=true")
    url = json.loads(await body_of(answer))["url"]
    caller.service.faults = type(caller.service.faults)()
    assert (await caller.send("GET", url, bearer=False)).status == 403


async def test_a_test_of_another_process_can_look_and_change():
    """Faults and changes below ``/-/``; nonsense is refused."""
    caller = await logged_in(few(2))
    plan = b'[{"fail": "html", "kind": "search"}]'
    assert (await caller.send("POST", "/-/faults", plan)).status == 200
    assert (await caller.send("GET", "objects")).headers["Content-Type"] == "text/html"
    assert caller.service.faults.fired == {"1:html": 1}
    assert (await caller.send("POST", "/-/faults", b"")).status == 200
    new = {"id": "n", "size": 5, "createdTime": "2023-11-14T22:13:20"}
    assert (await caller.send("POST", "/-/add", json.dumps(new).encode())).status == 200
    gone = {"region": "us-east", "id": "n", "objectState": "REVOKED"}
    assert (await caller.send("POST", "/-/change", json.dumps(gone).encode())).status == 200
    assert (await caller.get("objects/n"))["objectState"] == "REVOKED"
    assert caller.service.counters.requests["search"] == 1
    for url, body in (("change", b"{}"), ("add", b"[]"), ("faults", b"{"), ("nothing", b"")):
        assert (await caller.send("POST", f"/-/{url}", body)).status in (400, 404)


async def test_objects_by_hand_have_what_a_record_has():
    """Its own words, tags as a list, content by size and seed or as text, a size that is not so."""
    caller = await logged_in(few(0), customer_id="first")

    async def post(what: str, **body: object) -> int:
        return (await caller.send("POST", f"/-/{what}", json.dumps(body).encode())).status

    given = {
        "id": "n",
        "type": "voicemail",
        "objectName": "note.mp3",
        "checksum": "0" * 32,
        "createdTime": "2023-11-14T22:13:20",
        "updatedTime": "2023-11-14T22:13:25",
        "storedBytes": 0,
        "tags": [{"key": "callerName", "value": "Ruth"}],
    }
    assert await post("add", **given, customerId="second", size=9, seed="x") == 200
    assert (await caller.get("objects/n")).items() >= {**given, "customerId": "second"}.items()
    whole = await body_of(await caller.send("GET", "objects/n/content"))
    assert whole == ramp("x", 9).read(0, 9)
    again = {
        "region": "us-east",
        "id": "n",
        "text": "all new",
        "updatedTime": "2024-01-01T00:00:00",
    }
    assert await post("change", **again) == 200
    assert await body_of(await caller.send("GET", "objects/n/content")) == b"all new"
    assert (await caller.get("objects/n"))["updatedTime"] == "2024-01-01T00:00:00"
    assert await post("add", id="m", createdTime="2023-11-14T22:13:20", text="hello") == 200
    assert (await caller.get("objects/m"))["customerId"] == "first"
    assert (await caller.get("objects", filter="customerId==first"))["pageSize"] == 1
    assert await post("add", id="m", createdTime="2023-11-14T22:13:20") == 400


async def test_options_can_be_chosen_anew_while_it_runs():
    """Another key is another login: the old tokens die, the old key gets none."""
    caller = await logged_in(few())
    assert (await caller.send("POST", "/-/options", b'{"sizes": "string"}')).status == 200
    assert (await caller.get("objects/o1"))["storedBytes"] == "1001"
    assert (await caller.send("POST", "/-/options", b'{"sizes": "huge"}')).status == 400
    assert (await caller.send("POST", "/-/options", b'{"sizes": "number", "no": 1}')).status == 400
    assert (await caller.get("objects/o1"))["storedBytes"] == "1001"
    other = b'{"key": "other", "customer_id": "second"}'
    assert (await caller.send("POST", "/-/options", other)).status == 200
    assert (await caller.send("GET", "objects")).status == 401
    with pytest.raises(AssertionError):
        await caller.log_in()
