"""S3 clients read what a daemon serves: real processes over the fake service."""

import hashlib
import http.client
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from phonofs.demo.dataset import demo_account
from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.options import Options
from tests.mount.test_door import shown
from tests.mount.test_journal import lines_of
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.authority import Authority
from tests.support.doors import PROFILE
from tests.support.mounts import phonofs, standing, until
from tests.support.s3_client import (
    ALL,
    Answer,
    Credential,
    S3Client,
    S3Served,
    s3_served,
    write_keys,
)
from tests.support.timing import Stopwatch

DAY = "2026/2026-03/2026-03-02"
YESTERDAY = "2026/2026-03/2026-03-01"
MIB = 1 << 20


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample account."""
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    with (
        standing(account) as stand_in,
        s3_served(stand_in.url, tmp_path_factory.mktemp("s3")) as daemon,
    ):
        yield stand_in, daemon


@pytest.fixture
def client(sample) -> S3Client:
    return sample[1].client()


# the tree


@pytest.mark.promise("s3-door-is-the-tree")
def test_every_object_is_there_with_its_bytes_and_its_checksum(sample, client):
    """Names, sizes and bytes are those of the local door; what is archived says so."""
    items = shown(sample[0].service.account)
    with sample[1].connect() as door:
        entries = {entry.name: entry for entry in door.find("")}
    listed = client.list()
    assert {each["Key"] for each in listed} == {*entries}
    assert all(one["Key"].encode() < other["Key"].encode() for one, other in pairwise(listed))
    archived = 0
    for each in listed:
        entry = entries[each["Key"]]
        head = client.ask("HEAD", each["Key"])
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) == int(each["Size"]) == entry.size
        assert head.headers["etag"] == each["ETag"] == f'"{entry.fingerprint}"'
        answer = client.get(each["Key"])
        if entry.state == "ARCHIVED":
            archived += 1
            assert head.headers["x-amz-storage-class"] == each["StorageClass"] == "GLACIER"
            assert (answer.status, answer.code) == (403, "InvalidObjectState")
            continue
        item = items[entry.id]
        assert (answer.status, answer.body) == (200, item.content.read(0, item.content.size))
        assert (each["StorageClass"], "x-amz-storage-class" in head.headers) == ("STANDARD", False)
        if "-" not in entry.fingerprint:
            md5 = hashlib.md5(answer.body, usedforsecurity=False).hexdigest()
            assert answer.headers["etag"] == f'"{md5}"'
    assert archived


@pytest.mark.promise("s3-door-is-the-tree")
def test_the_views_are_listed_if_a_prefix_leads_into_them(client):
    assert not [key for key in client.keys("") if key.startswith(".views")]
    assert client.keys(delimiter="/") == ["2026/"]
    assert client.keys(".views", delimiter="/") == [".views/"]
    assert ".views/text/" in client.keys(".views/", delimiter="/")
    texts = client.list(".views/text/")
    assert len(texts) > 10
    for each in texts:
        answer = client.get(each["Key"])
        assert (answer.status, len(answer.body)) == (200, int(each["Size"]))
        assert answer.headers["etag"] == each["ETag"]
        assert len(each["ETag"]) != 34, "it is no MD5, and must not look like one"
    by_day = client.list(f".views/by-day/{DAY[-10:]}/")
    assert len({each["Key"] for each in by_day}) == len(by_day) > 3
    for each in by_day:
        if each["StorageClass"] == "STANDARD":
            assert len(client.get(each["Key"]).body) == int(each["Size"])


@pytest.mark.promise("s3-door-is-the-tree")
def test_keys_are_in_the_order_of_bytes_with_several_regions_too(tmp_path):
    """The folder ``us`` is before ``us-east``, its keys are not."""
    regions = ["us-east", "us", "uk"]
    places = [(region, day) for region in regions for day in range(3) for _ in range(5)]
    items = [
        flat_item(f"{number:08}", 10, NOON_MS - 86_400_000 * day + number * 1000, region=region)
        for number, (region, day) in enumerate(places)
    ]
    with (
        standing(Account(items, regions)) as stand_in,
        s3_served(stand_in.url, tmp_path) as daemon,
    ):
        client = daemon.client()
        keys = client.keys()
        assert len(keys) == len(items)
        assert keys == sorted(keys, key=str.encode)
        assert client.keys(delimiter="/") == ["uk/", "us-east/", "us/"]
        for most in ("1", "7"):
            assert client.keys(max_keys=most) == keys
        assert client.keys("us") == [key for key in keys if key.startswith("us")]


def test_a_range_is_those_bytes_and_no_others(sample, client):
    key = max(client.list("2026/2026-03/"), key=lambda each: int(each["Size"]))["Key"]
    whole = client.get(key).body
    size = len(whole)
    for asked, first, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=3-{size * 2}", 3, size),
    ):
        answer = client.get(key, Range=asked)
        assert (answer.status, answer.body) == (206, whole[first:stop])
        assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{size}"
        head = client.ask("HEAD", key, headers={"Range": asked})
        assert (head.status, int(head.headers["content-length"])) == (206, stop - first)
    beyond = client.get(key, Range=f"bytes={size}-")
    assert (beyond.status, beyond.code) == (416, "InvalidRange")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    etag = client.get(key).headers["etag"]
    assert client.get(key, If_None_Match=etag).status == 304
    assert client.get(key, If_Match='"other"').code == "PreconditionFailed"


def test_many_requests_go_over_one_connection_also_after_errors(sample, client):
    keys = client.keys(f"{DAY}/")
    connection = client.connect()
    connection.connect()
    number = connection.sock.fileno()
    for path in [*keys[:3], "nothing", *keys[:3]]:
        response = client.begin("GET", path, connection)
        assert (response.status, bool(response.read())) == (404 if path == "nothing" else 200, True)
        assert connection.sock is not None
        assert connection.sock.fileno() == number
    for _ in range(3):
        response = client.begin("HEAD", "nothing", connection)
        assert (response.status, response.read()) == (404, b"")
    connection.close()


# it cannot write


WRITES = [
    ("PUT", "x", {}),
    ("PUT", "x", {"partNumber": "1", "uploadId": "u"}),
    ("PUT", "x", {"tagging": ""}),
    ("PUT", "x", {"acl": ""}),
    ("PUT", "", {}),
    ("PUT", "", {"policy": ""}),
    ("POST", "x", {"uploads": ""}),
    ("POST", "x", {"uploadId": "u"}),
    ("POST", "x", {"select": "", "select-type": "2"}),
    ("POST", "", {"delete": ""}),
    ("POST", "", {}),
    ("DELETE", "x", {}),
    ("DELETE", "x", {"uploadId": "u"}),
    ("DELETE", "", {}),
    ("PATCH", "x", {}),
]


@pytest.mark.promise("s3-door-cannot-write")
def test_whatever_would_change_something_is_refused(sample, client):
    """A body of any length is not waited for."""
    before = client.list(f"{DAY}/")
    path = before[0]["Key"]
    for method, where, parameters in WRITES:
        for body in (b"", b"x" * 1000):
            answer = client.ask(method, where and path, parameters=parameters, body=body)
            assert (answer.status, answer.code) == (405, "MethodNotAllowed"), (method, parameters)
    answer = client.ask("PUT", path, body=b"x" * 3 * MIB)
    assert (answer.status, answer.code) == (405, "MethodNotAllowed")
    assert client.list(f"{DAY}/") == before


def test_what_is_asked_of_other_resources_is_refused(sample, client):
    [key, *_] = client.keys(f"{DAY}/")
    for name in ("acl", "tagging", "torrent", "attributes", "uploadId", "versionId"):
        assert client.ask("GET", key, parameters={name: "1"}).code == "MethodNotAllowed"
    for name in ("versioning", "versions", "uploads", "policy", "lifecycle", "website"):
        assert client.ask("GET", "", parameters={name: ""}).code == "MethodNotAllowed"
    assert client.ask("GET", key, parameters={"x-id": "GetObject"}).status == 200


# what a key opens


RECORDINGS = Credential("RECORDINGS", "b" * 40, 'types = ["callcenterrecording"]')
ONE_DAY = Credential("ONEDAY", "c" * 40, f'prefixes = ["{DAY}"]')
TEXTS = Credential(
    "TEXTS", "d" * 40, 'prefixes = [".views/text", ".views/by-day"]\ntypes = ["transcription"]'
)
UNKNOWN = Credential("UNKNOWN", "e" * 40)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    with (
        standing(account) as stand_in,
        s3_served(
            stand_in.url, tmp_path_factory.mktemp("keys"), ALL, RECORDINGS, ONE_DAY, TEXTS
        ) as daemon,
    ):
        yield daemon


@pytest.mark.promise("a-key-opens-what-it-may")
def test_a_key_with_a_prefix_opens_and_lists_what_is_below_it(keyed):
    whole, client = keyed.client(), keyed.client(ONE_DAY)
    inside, outside = whole.keys(f"{DAY}/"), whole.keys(f"{YESTERDAY}/")
    assert client.keys() == inside
    assert client.keys(f"{DAY}/{inside[0][len(DAY) + 1 :][:8]}")
    assert client.keys(delimiter="/") == ["2026/"]
    assert client.keys("2026/2026-03/", delimiter="/") == [f"{DAY}/"]
    assert client.get(inside[0]).status in (200, 403)
    for path in (
        outside[0],
        f"{outside[0]}-is-not-there",
        f"{DAY}x/a",
        f"{DAY[:-1]}",
        f"/{inside[0]}",
        f"./{inside[0]}",
        f".views/by-day/{DAY[-10:]}/{inside[0][len(DAY) + 1 :]}",
    ):
        for method in ("GET", "HEAD"):
            answer = client.ask(method, path)
            assert answer.status == 403, path
        assert client.get(path).code == "AccessDenied"
        assert client.get(path).body.count(b"\n") == client.get("zz/no").body.count(b"\n")
    for inner in (f"{DAY}/../{outside[0]}", f"{DAY}//{inside[0][len(DAY) + 1 :]}", f"{DAY}/./a"):
        assert client.get(inner).code == "NoSuchKey", "a path has no . and no .."
    for prefix in (f"{YESTERDAY}/", ".views/", "2025/"):
        answer = client.ask("GET", "", parameters={"list-type": "2", "prefix": prefix})
        assert answer.code == "AccessDenied"
        answer = client.ask("GET", "", parameters={"prefix": prefix})
        assert answer.code == "AccessDenied"


@pytest.mark.promise("a-key-opens-what-it-may")
def test_a_key_for_a_type_opens_and_lists_objects_of_that_type(keyed):
    """Of the views: texts that are made of them, and no list of a day."""
    whole, client = keyed.client(), keyed.client(RECORDINGS)
    every = whole.keys("2026/")
    may = [key for key in every if "_callcenterrecording_" in key and key.endswith(".mp3")]
    assert 0 < len(may) < len(every)
    assert client.keys("2026/", max_keys="9") == may
    for key in every:
        if key not in may:
            assert client.get(key).code == "NoSuchKey", "as if it were not there"
            assert client.ask("HEAD", key).status == 404
    texts = keyed.client(TEXTS)
    by_day = f".views/by-day/{DAY[-10:]}/"
    listed = texts.keys(by_day)
    assert listed
    assert not [key for key in listed if key.endswith((".mp3", ".csv", "MD5SUMS"))]
    for key in whole.keys(by_day):
        assert (texts.get(key).code == "NoSuchKey") == (key not in listed), key
    assert texts.get(every[0]).code == "AccessDenied"


@pytest.mark.promise("a-key-opens-what-it-may")
def test_without_the_right_signature_nothing_is_told(keyed):
    [key, *_] = keyed.client().keys(f"{DAY}/")
    assert keyed.client(UNKNOWN).get(key).code == "InvalidAccessKeyId"
    wrong = keyed.client(Credential(ALL.access_key, "f" * 40))
    for path in (key, "nothing", ""):
        assert wrong.get(path).code == "SignatureDoesNotMatch"
    client = keyed.client()
    target, headers = client.signed("GET", key)
    other = client.signed("GET", "nothing")[0]
    for method, where in (("HEAD", target), ("GET", other), ("GET", target + "?acl")):
        assert sent(client, method, where, headers).status == 403
    assert sent(client, "GET", target, headers).status == 200
    for name in ("Authorization", "X-Amz-Date", "Host"):
        less = {each: value for each, value in headers.items() if each != name}
        assert sent(client, "GET", target, less).status in (400, 403)
    assert sent(client, "GET", target, headers | {"Host": "elsewhere:9000"}).status == 403
    assert sent(client, "GET", target, headers | {"x-amz-more": "1"}).code == "AccessDenied"
    log = keyed.log_text()
    for credential in (ALL, ONE_DAY):
        assert credential.secret_key not in log


def sent(client: S3Client, method: str, target: str, headers: dict[str, str]) -> Answer:
    """Send a request as it is."""
    connection = client.connect()
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return Answer(response.status, {}, body)


@pytest.mark.promise("s3-opens-are-recorded")
def test_each_get_is_in_the_journal_before_its_bytes_by_the_name_of_the_key(tmp_path):
    journal = tmp_path / "journal"
    options = {"journal": str(journal), "poll_interval": "0"}
    with (
        standing(flat(1000, 3 * MIB)) as stand_in,
        s3_served(stand_in.url, tmp_path, ALL, ONE_DAY, **options) as daemon,
    ):
        client = daemon.client(ONE_DAY)
        keys = client.keys()
        client.ask("HEAD", keys[0])
        client.get(keys[0], If_Match='"other"')
        assert not [line for line in lines_of(journal, PROFILE) if line.event == "open"]
        connection = client.connect()
        response = client.begin("GET", keys[1], connection)
        [line] = [line for line in lines_of(journal, PROFILE) if line.event == "open"]
        assert (line.how, line.key, line.result) == ("s3", "oneday", "granted")
        assert (line.uid, line.pid, line.object) == (None, None, "00000001")
        assert len(response.read()) == 3 * MIB
        until(lambda: lines_of(journal, PROFILE)[-1].event == "close")
        close = lines_of(journal, PROFILE)[-1]
        assert (close.of, close.bytes_at_least) == (line.n, 3 * MIB)
        connection.close()
        shown_ = phonofs(daemon, "journal", "show", PROFILE)
        assert " key oneday " in shown_.stdout
        [only, _] = phonofs(daemon, "journal", "show", PROFILE, "--key", "oneday").stdout.split(
            "\n"
        )[:2]
        assert "00000001" in only
        assert phonofs(daemon, "journal", "show", PROFILE, "--key", "all").stdout == ""


# when the service fails


@pytest.mark.promise("s3-errors")
def test_what_cannot_be_asked_is_never_absent(tmp_path):
    """A day that is not known, a name in it, bytes that are not cached: SlowDown."""
    items = [flat_item(f"{day:08d}", 1000, NOON_MS - 86_400_000 * day) for day in (0, 1)]
    with standing(Account(items, ["us-east"])) as stand_in:
        options = {"read_deadline": "2s", "poll_interval": "0"}
        with s3_served(stand_in.url, tmp_path, **options) as daemon:
            client = daemon.client()
            [key] = client.keys(f"{DAY}/")
            for status in (503, 429):
                kinds = ["search", "record", "content"]
                stand_in.faults({"kind": kinds, "fail": "status", "status": status})
                assert client.ask("HEAD", key).status == 200, "what is known is there"
                for path in (key, f"{YESTERDAY}/name"):
                    answer = client.get(path)
                    assert (answer.status, answer.code) == (503, "SlowDown")
                    assert int(answer.headers["retry-after"]) > 0
                for prefix in ("", "2026/", f"{YESTERDAY}/"):
                    asked = {"list-type": "2", "prefix": prefix}
                    assert client.ask("GET", "", parameters=asked).code == "SlowDown"
            stand_in.faults()
            until(lambda: client.get(key).status == 200)
            assert client.get("2027/nothing").code == "NoSuchKey"
            assert len(client.keys()) == 2


@pytest.mark.promise("s3-errors")
def test_an_archived_object_can_be_asked_back(tmp_path):
    with (
        standing(flat(1000, state="ARCHIVED"), Options(restore_s=3600)) as stand_in,
        s3_served(stand_in.url, tmp_path, poll_interval="0.2s") as daemon,
    ):
        client = daemon.client()
        [key] = client.keys()
        ask = {
            "parameters": {"restore": ""},
            "body": b"<RestoreRequest><Days>2</Days></RestoreRequest>",
        }
        assert client.ask("POST", f"{key}x", **ask).code == "NoSuchKey"
        for body in (b"", b"<Restore", b"<RestoreRequest><Days>99</Days></RestoreRequest>"):
            answer = client.ask("POST", key, **ask | {"body": body})
            assert answer.status == 400, answer
        assert "x-amz-restore" not in client.ask("HEAD", key).headers
        assert client.ask("POST", key, **ask).status == 202
        assert client.ask("HEAD", key).headers["x-amz-restore"] == 'ongoing-request="true"'
        assert client.ask("POST", key, **ask).code == "RestoreAlreadyInProgress"
        assert stand_in.service.counters.requests["restore"] == 1
        account = stand_in.service.account
        change(account, "us-east", "00000000", NOON_MS + 10_000, state="AVAILABLE")
        until(lambda: client.get(key).status == 200)
        assert "x-amz-restore" not in client.ask("HEAD", key).headers
        assert client.ask("POST", key, **ask).code == "InvalidObjectState"


@pytest.mark.promise("s3-never-a-false-byte")
@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_false_content_is_an_error_or_cut_and_never_whole(tmp_path, size):
    """A small one is an error before its status; of a large one the end is missing."""
    options = {"read_deadline": "5s", "poll_interval": "0"}
    with (
        standing(flat(size)) as stand_in,
        s3_served(stand_in.url, tmp_path, **options) as daemon,
    ):
        client = daemon.client()
        [key] = client.keys()
        stand_in.faults({"kind": "content", "fail": "flip", "at": size - 10})
        if size > MIB:
            with pytest.raises(http.client.IncompleteRead) as cut:
                client.get(key)
            assert len(cut.value.partial) < size - 10
        else:
            answer = client.get(key)
            assert (answer.status, answer.code) == (500, "InternalError")
        assert daemon.status()["s3"]["errors"]["InternalError"] == 1
        stand_in.faults()
        assert client.get(key).body == content_of(stand_in.service, "00000000")


@pytest.mark.promise("s3-never-a-false-byte")
def test_a_service_that_fails_amid_a_content_cuts_it(tmp_path):
    """The first bytes are cached, and the service gives no others."""
    options = {"read_deadline": "2s", "timeout": "1s", "poll_interval": "0"}
    with (
        standing(flat(40 * MIB)) as stand_in,
        s3_served(stand_in.url, tmp_path, **options) as daemon,
    ):
        client = daemon.client()
        [key] = client.keys()
        stand_in.faults({"kind": "content", "fail": "cut", "after": MIB})
        until(lambda: client.get(key, Range=f"bytes=0-{MIB // 2}").status == 206)
        stand_in.faults({"kind": "content", "fail": "status", "status": 503})
        with pytest.raises(http.client.IncompleteRead) as cut:
            client.get(key)
        got = cut.value.partial
        assert got
        assert got == content_of(stand_in.service, "00000000")[: len(got)]
        assert "Traceback" not in daemon.log_text()


def test_a_content_that_changed_has_another_etag_and_a_condition_on_the_old_fails(tmp_path):
    with (
        standing(flat(300_000)) as stand_in,
        s3_served(stand_in.url, tmp_path, poll_interval="0.2s") as daemon,
    ):
        client = daemon.client()
        [key] = client.keys()
        before = client.get(key).headers["etag"]
        content = flat_item("other", 200_000, NOON_MS).content
        change(stand_in.service.account, "us-east", "00000000", NOON_MS + 9000, content=content)
        until(lambda: client.ask("HEAD", key).headers["etag"] != before)
        assert client.get(key, If_Match=before).code == "PreconditionFailed"
        assert client.get(key, Range="bytes=0-9", If_Range=before).status == 200
        assert client.get(key).body == content_of(stand_in.service, "00000000")
        change(stand_in.service.account, "us-east", "00000000", NOON_MS + 20_000, state="REVOKED")
        until(lambda: client.get(key).code == "NoSuchKey")


# its keys, its address


def test_sighup_reads_the_keys_again_and_a_bad_file_changes_nothing(tmp_path):
    with standing(flat(1000)) as stand_in, s3_served(stand_in.url, tmp_path) as daemon:
        other = Credential("OTHER", "g" * 40)
        write_keys(daemon.keys, other)
        assert daemon.client(other).ask("HEAD", "").status == 403
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.client(other).ask("HEAD", "").status == 200)
        assert daemon.client().ask("HEAD", "").status == 403
        daemon.keys.write_text("[[key]\n" + other.secret_key)
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.status()["s3"]["keys_error"])
        assert "is not valid TOML" in daemon.status()["s3"]["keys_error"]
        assert daemon.client(other).ask("HEAD", "").status == 200
        assert "stay as they were" in daemon.log_text()
        page = phonofs(daemon, "status", "--profile", PROFILE).stdout
        assert f"served at http://127.0.0.1:{daemon.port}, 1 key, 0 connections; their keys" in page
        write_keys(daemon.keys, other, ALL)
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.client().ask("HEAD", "").status == 200)
        assert daemon.status()["s3"]["keys_error"] == ""
        assert other.secret_key not in daemon.log_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "0.0.0.0:0", "--keys", "KEYS"], "with TLS only"),
        (["--listen", "[::]:0", "--keys", "KEYS"], "with TLS only"),
        (["--listen", "example.com:9000", "--keys", "KEYS"], "with TLS only"),
        (["--listen", "127.0.0.1", "--keys", "KEYS"], "is not ADDRESS:PORT"),
        (["--listen", "127.0.0.1:99999", "--keys", "KEYS"], "is not ADDRESS:PORT"),
        (["--listen", "127.0.0.1:0"], "--listen needs --keys"),
        (["--keys", "KEYS"], "are for --listen"),
        (["--listen", "127.0.0.1:0", "--keys", "KEYS", "--idle", "1m"], "does not go with"),
        (["--listen", "127.0.0.1:0", "--keys", "nothing.toml"], "does not exist"),
        (["--listen", "127.0.0.1:0", "--keys", "OPEN"], "others"),
        (["--listen", "127.0.0.1:0", "--keys", "KEYS", "--tls-key", "k"], "needs --tls-cert"),
        (["--listen", "127.0.0.1:0", "--keys", "KEYS", "--tls-cert", "KEYS"], "cannot be used"),
        (["--listen", "192.0.2.1:9000", "--keys", "KEYS", "--tls-cert", "PEM"], "cannot be used"),
        (["--listen", "a..b:9000", "--keys", "KEYS", "--tls-cert", "PEM"], "cannot be used"),
    ],
)
@pytest.mark.promise("a-key-opens-what-it-may")
def test_what_cannot_be_served_safely_is_refused_with_a_sentence(tmp_path, words, message):
    daemon = S3Served("http://127.0.0.1:1", tmp_path / "served", tmp_path / "cache")
    write_keys(daemon.keys, ALL)
    (tmp_path / "open.toml").write_text(ALL.table())
    (tmp_path / "open.toml").chmod(0o644)
    Authority(tmp_path).server("localhost")
    named = {
        "KEYS": str(daemon.keys),
        "OPEN": str(tmp_path / "open.toml"),
        "PEM": str(tmp_path / "localhost1.pem"),
    }
    done = phonofs(daemon, "serve", PROFILE, "-f", *[named.get(word, word) for word in words])
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert ALL.secret_key not in done.stderr


def test_over_tls_it_serves_other_machines_and_reads_its_certificate_again(tmp_path):
    authority = Authority(tmp_path)
    authority.server("localhost", "127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(authority.file))
    words = ("--listen", "0.0.0.0:0", "--tls-cert", str(tmp_path / "localhost1.pem"))
    with (
        standing(flat(1000, 5 * MIB)) as stand_in,
        s3_served(stand_in.url, tmp_path, words=words) as daemon,
    ):
        client = S3Client(daemon.port, ALL, trusting)
        keys = client.keys()
        assert client.get(keys[1]).body == content_of(stand_in.service, "00000001")
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda _: client.get(keys[1]).body, range(16))
            assert {len(each) for each in found} == {5 * MIB}
        with daemon.raw() as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP")
        serial = certificate_of(daemon.port, trusting)
        authority.server("localhost", "127.0.0.1")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: certificate_of(daemon.port, trusting) != serial)
        until(lambda: daemon.gauges() == (0, 0, 0, 0))
        assert "Traceback" not in daemon.log_text()


def certificate_of(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    connection.connect()
    serial = connection.sock.getpeercert()["serialNumber"]
    connection.close()
    return serial


# clients that misbehave


@pytest.mark.promise("an-s3-client-leaves-nothing")
def test_garbage_is_answered_with_an_error_and_the_end(sample):
    daemon = sample[1]
    for garbage in (
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/y HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\n",
    ):
        with daemon.raw() as connection:
            connection.sendall(garbage)
            connection.shutdown(1)
            answer = b""
            while some := connection.recv(65536):
                answer += some
        assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 403"), (garbage[:60], answer)
    until(lambda: daemon.gauges() == (0, 0, 0, 0))
    assert "Traceback" not in daemon.log_text()


@pytest.mark.promise("an-s3-client-leaves-nothing")
def test_a_client_that_vanishes_leaves_nothing(tmp_path):
    """Amid a wait for the service, amid a content, amid its own request."""
    with (
        standing(flat(*[100_000] * 5, 30 * MIB)) as stand_in,
        s3_served(stand_in.url, tmp_path, poll_interval="0") as daemon,
    ):
        client = daemon.client()
        keys = client.keys()
        large = client.connect()
        assert client.begin("GET", keys[5], large).status == 200
        stand_in.faults({"kind": "content", "fail": "stall", "after": 10})
        waiting = [client.connect() for _ in keys[:5]]
        for connection, key in zip(waiting, keys, strict=False):
            target, headers = client.signed("GET", key)
            connection.request("GET", target, headers=headers)
        half = daemon.raw()
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        until(lambda: daemon.gauges()[3] == 5)
        for connection in (large, half, *waiting):
            connection.close()
        until(lambda: daemon.gauges() == (0, 0, 0, 0))
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log_text()


@pytest.mark.promise("an-s3-client-leaves-nothing")
def test_200_clients_at_once_do_not_hold_a_listing_up(tmp_path):
    with (
        standing(flat(*[100_000] * 200)) as stand_in,
        s3_served(stand_in.url, tmp_path, read_deadline="2min") as daemon,
    ):
        client = daemon.client()
        keys = client.keys()
        assert len(keys) == 200
        stand_in.faults({"kind": "content", "fail": "delay", "seconds": 2})
        connections = [client.connect() for _ in keys]
        for connection, key in zip(connections, keys, strict=True):
            target, headers = client.signed("GET", key)
            connection.request("GET", target, headers=headers)
        until(lambda: daemon.gauges()[1] > 150)
        with daemon.connect() as door:
            watch = Stopwatch()
            assert len(door.ls(DAY)) == len(client.keys(f"{DAY}/")) == 200
            assert watch.within(2), watch
        assert {len(each.getresponse().read()) for each in connections} == {100_000}
        for connection in connections:
            connection.close()
        until(lambda: daemon.gauges() == (0, 0, 0, 0))


def test_each_byte_is_fetched_once_however_many_ranges_are_read(tmp_path):
    """As clients do that get one object in many parts at once."""
    size = 20 * MIB
    with (
        standing(flat(size)) as stand_in,
        s3_served(stand_in.url, tmp_path, poll_interval="0") as daemon,
    ):
        client = daemon.client()
        [key] = client.keys()
        part = size // 16
        with ThreadPoolExecutor(16) as pool:
            ranges = [f"bytes={at}-{at + part - 1}" for at in range(0, size, part)]
            parts = pool.map(lambda each: client.get(key, Range=each).body, ranges)
            assert b"".join(parts) == content_of(stand_in.service, "00000000")
        assert stand_in.service.counters.of("us-east", "00000000").twice == 0
