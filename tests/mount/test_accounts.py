"""A cache folder and the accounts that used it: whose key sees what, before and after a change."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest
import trio

from phonofs.fakeservice.account import flat_item
from phonofs.fakeservice.responses import refusal
from tests.support.accounts import NOON_MS
from tests.support.customers import DEMO_KEY, OTHER_KEY, ROTATED_KEY, customers, objects_of
from tests.support.mounts import (
    Mount,
    files,
    mount_in_background,
    phonofs,
    status_of,
    unmount,
    unmounted,
    until,
)

pytestmark = pytest.mark.fuse

A = ("customer-A", "aaaa", 5000, 6000, 7000)
B = ("customer-B", "bbbb", 800, 900)


@pytest.fixture
def two(tmp_path):
    """Two customers, A's key and B's; the mount is not made yet, its key is A's."""
    accounts = {DEMO_KEY: objects_of(*A), OTHER_KEY: objects_of(*B)}
    with customers(accounts) as stand_in, unmounted(stand_in, tmp_path) as mount:
        yield mount


def start(mount: Mount, key: str = DEMO_KEY) -> str:
    """Mount with a key; what was said on standard error."""
    mount.environment["PHONOFS_KEY"] = key
    return mount_in_background(mount)


def look(mount: Mount, key: str = DEMO_KEY) -> dict[str, bytes]:
    """Mount with a key, read everything and unmount; what was shown."""
    start(mount, key)
    seen = shown(mount)
    unmount(mount)
    return seen


def shown(mount: Mount) -> dict[str, bytes]:
    """The marks of the objects in the tree, each with its content."""
    return {
        os.getxattr(path, "user.phonofs.id").decode(): path.read_bytes()
        for path in files(mount.point)
    }


def ids(what: tuple) -> set[str]:
    return {f"{what[1]}{index:04d}" for index in range(len(what) - 2)}


def requested(mount: Mount, key: str) -> int:
    """Requests for content that were made with a key."""
    return mount.stand_in.service.by_key[key].counters.requests["content"]


@pytest.mark.promise("tree-is-the-account")
def test_another_customers_key_sees_nothing_of_the_first(two):
    """Each key has its own tree; what the first left is set aside, said so, and comes back."""
    assert start(two) == ""
    of_a = shown(two)
    assert set(of_a) == ids(A)
    unmount(two)
    said = start(two, OTHER_KEY)
    assert "set aside" in said
    assert len(said.strip().splitlines()) == 1
    assert set(shown(two)) == ids(B)
    two.stand_in.service.by_key[OTHER_KEY].account.put(
        flat_item("bbbb0009", 10, NOON_MS + 9_000_000, extra={"customerId": "customer-B"})
    )
    unmount(two)
    asked = requested(two, DEMO_KEY)
    assert "set aside" in start(two)
    assert shown(two) == of_a
    assert requested(two, DEMO_KEY) == asked, "what was cached came back with its key"
    unmount(two)


@pytest.mark.promise("tree-is-the-account")
def test_a_rotated_key_of_the_same_customer_keeps_its_cache(two):
    """A new key for the same customer: nothing is fetched twice, nothing is set aside."""
    of_a = look(two)
    service = two.stand_in.service
    service.add_key(ROTATED_KEY, service.by_key[DEMO_KEY].account)
    assert start(two, ROTATED_KEY) == ""
    assert shown(two) == of_a
    assert requested(two, ROTATED_KEY) == 0
    unmount(two)


@pytest.mark.promise("tree-is-the-account")
def test_an_unknown_key_while_the_service_is_away(two):
    """It is not known whose key it is: nothing is shown, exit 3; the known key is served."""
    of_a = look(two)
    two.stand_in.stop()
    two.environment |= {"PHONOFS_KEY": OTHER_KEY, "PHONOFS_READ_DEADLINE": "1s"}
    done = phonofs(two, "mount", str(two.point))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1), done.stderr
    assert not os.path.ismount(two.point)
    assert "offline" in start(two)
    assert shown(two) == of_a
    unmount(two)


@pytest.mark.promise("tree-is-the-account")
def test_an_unknown_key_of_an_empty_account(two):
    """No record says whose key it is: an empty tree, and A's is untouched."""
    of_a = look(two)
    empty = objects_of("customer-B", "bbbb")
    two.stand_in.service.by_key[OTHER_KEY].account = empty
    start(two, OTHER_KEY)
    assert os.listdir(two.point) == []
    unmount(two)
    asked = requested(two, DEMO_KEY)
    start(two)
    assert shown(two) == of_a
    assert requested(two, DEMO_KEY) == asked
    unmount(two)


def test_a_folder_without_its_note_is_adopted_by_its_customer_alone(two):
    """A damaged or missing note: whose the records are decides, and only when it can be asked."""
    of_a = look(two)
    two.cache.joinpath("accounts.json").write_text("{")
    assert set(look(two, OTHER_KEY)) == ids(B)
    two.cache.joinpath("accounts.json").unlink()
    asked = requested(two, DEMO_KEY)
    start(two)
    assert shown(two) == of_a
    assert requested(two, DEMO_KEY) == asked
    unmount(two)


@pytest.mark.promise("tree-is-the-account")
def test_a_key_that_sees_two_customers_is_not_locked_out(two):
    """Records of several customers in one answer are one account, known by its key; but none of
    the customers alone is shown what that key left."""
    both = objects_of(*A)
    for index in range(2):
        both.put(
            flat_item(
                f"cccc{index:04d}", 400, NOON_MS + 5_000_000 + index, extra={"customerId": "C"}
            )
        )
    two.stand_in.service.by_key[DEMO_KEY].account = both
    two.stand_in.service.by_key[OTHER_KEY].account = objects_of(*A)
    for _ in range(2):
        assert set(look(two)) == ids(A) | {"cccc0000", "cccc0001"}
    assert set(look(two, OTHER_KEY)) == ids(A)


@pytest.mark.promise("cap-is-hard")
def test_what_is_set_aside_counts_and_goes_first(two):
    """Within cache_size: the other account's bytes go before any of this one's."""
    two.environment["PHONOFS_CACHE_SIZE"] = "4M"
    two.stand_in.service.by_key[DEMO_KEY].account = objects_of("customer-A", "aaaa", 2_000_000)
    two.stand_in.service.by_key[OTHER_KEY].account = objects_of(
        "customer-B", "bbbb", *[1_000_000] * 3
    )
    look(two)
    start(two, OTHER_KEY)
    of_b = shown(two)
    until(lambda: held(two) <= 4 << 20)
    asked = requested(two, OTHER_KEY)
    unmount(two)
    start(two, OTHER_KEY)
    assert shown(two) == of_b
    assert requested(two, OTHER_KEY) == asked, "what is in use went before what is set aside"
    unmount(two)


def held(mount: Mount) -> int:
    return sum(p.stat().st_blocks * 512 for p in mount.cache.rglob("??/*") if p.is_file())


@pytest.mark.promise("cap-is-hard")
def test_without_a_disk_cache_nothing_of_another_account_stays(two):
    """cache_size=0 leaves no content on disk, whoever's it was."""
    look(two)
    look(two, OTHER_KEY)
    assert held(two)
    two.environment["PHONOFS_CACHE_SIZE"] = "0"
    start(two, OTHER_KEY)
    until(lambda: held(two) == 0)
    unmount(two)


def test_show_names_what_is_set_aside_and_clear_empties_it(two):
    """`cache show` tells of it without its objects; `cache clear` leaves nothing of it."""
    look(two)
    look(two, OTHER_KEY)
    done = phonofs(two, "cache", "show", "--list")
    assert done.returncode == 0, done.stderr
    assert "set aside" in done.stdout
    assert "customer-A" in done.stdout
    assert "bbbb0000" in done.stdout
    assert "aaaa" not in done.stdout
    damaged = two.cache / "catalogue.sqlite.damaged-20260302-120000"
    damaged.write_text("names and numbers")
    assert phonofs(two, "cache", "clear").returncode == 0
    assert held(two) == 0
    assert not damaged.exists()
    assert not any(b"aaaa0000" in p.read_bytes() for p in two.cache.rglob("*") if p.is_file())
    assert "set aside" not in phonofs(two, "cache", "show").stdout


def test_a_kill_at_any_point_of_the_change_mixes_nothing(two):
    """Killed just after another key began: each key still sees its own."""
    of_a = look(two)
    start(two, OTHER_KEY)
    shown(two)
    os.kill(status_of(two)["pid"], signal.SIGKILL)
    subprocess.run(["umount", "-l", str(two.point)], check=False)
    assert look(two) == of_a
    assert set(look(two, OTHER_KEY)) == ids(B)


# while it is mounted


def login(mount: Mount, key: str) -> None:
    """What `phonofs login` leaves behind where there is no keyring."""
    folder = mount.cache.parent / "config/phonofs/credentials"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "default"
    path.write_text(f"{key}\n{mount.environment['PHONOFS_SECRET']}\n")
    path.chmod(0o600)


@pytest.fixture
def logged_in(two):
    """A's key as `login` keeps it, mounted in the foreground."""
    login(two, DEMO_KEY)
    del two.environment["PHONOFS_KEY"]
    two.environment["PHONOFS_SECRET"] = "demo-secret"
    return two.start()


@pytest.mark.promise("tree-is-the-account")
def test_another_customers_key_after_a_hangup_gets_nothing(logged_in):
    """Not unmounted (an empty folder looks like a deletion), but refused: names, bytes, also
    those that the kernel has; A's key has it all back."""
    of_a = shown(logged_in)
    (first, *_) = files(logged_in.point)
    with first.open("rb") as opened:
        assert opened.read(10)
        login(logged_in, OTHER_KEY)
        logged_in.process.send_signal(signal.SIGHUP)
        until(lambda: _refused(lambda: os.listdir(logged_in.point)))
        until(lambda: _refused(lambda: first.stat()))
        until(lambda: _refused(lambda: os.pread(opened.fileno(), 10, 0)))
    assert os.path.ismount(logged_in.point)
    assert "another account" in status_of(logged_in)["condition"]
    assert "another account" in logged_in.log_text()
    login(logged_in, DEMO_KEY)
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: not _refused(lambda: os.listdir(logged_in.point)))
    assert shown(logged_in) == of_a
    assert logged_in.stop() == 0


def _refused(act, number: int = errno.EACCES) -> bool:
    try:
        act()
    except OSError as error:
        return error.errno == number
    return False


def test_a_new_key_that_cannot_be_asked_about_gets_nothing(logged_in):
    """While the service is away nobody knows whose it is; then it is told from the answer."""
    shown(logged_in)
    logged_in.stand_in.stop()
    login(logged_in, OTHER_KEY)
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: _refused(lambda: os.listdir(logged_in.point), errno.EIO))
    logged_in.stand_in.start()
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: _refused(lambda: os.listdir(logged_in.point)))
    assert logged_in.stop() == 0


def test_a_mistyped_key_leaves_nothing_to_set_aside(two):
    """It is refused, exit 2; the right one then begins as if it had never been."""
    two.environment["PHONOFS_KEY"] = "mistyped"
    assert phonofs(two, "mount", str(two.point)).returncode == 2
    assert start(two) == ""
    assert set(shown(two)) == ids(A)
    unmount(two)
    assert not (two.cache / "accounts").exists()


def test_a_rotated_key_after_a_hangup_goes_on(logged_in):
    """The same customer's new key: nothing is refused."""
    service = logged_in.stand_in.service
    service.add_key(ROTATED_KEY, service.by_key[DEMO_KEY].account)
    of_a = shown(logged_in)
    login(logged_in, ROTATED_KEY)
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: service.by_key[ROTATED_KEY].counters.requests["token"] > 0)
    until(lambda: status_of(logged_in)["service"]["token"]["fetched"] == 2)
    assert shown(logged_in) == of_a
    assert status_of(logged_in)["service"]["token"]["error"] == ""
    assert logged_in.stop() == 0


def test_an_old_folder_is_taken_over(two, tmp_path):
    """Its files moved to another place, as a user does: each key still has its own."""
    of_a = look(two)
    shutil.copytree(two.cache, tmp_path / "moved")
    two.environment["PHONOFS_CACHE_DIR"] = str(tmp_path / "moved")
    assert look(two) == of_a


@pytest.mark.promise("tree-is-the-account")
@pytest.mark.parametrize(
    "trouble",
    ["away", "refused", "no right to search", pytest.param("stalled", marks=pytest.mark.slow)],
)
def test_a_key_that_nobody_can_tell_about_after_a_hangup_gets_nothing(logged_in, trouble):
    """Whose it is cannot be learned: what is known of another is not shown; A's key has it back."""
    of_a = shown(logged_in)
    service = logged_in.stand_in.service
    if trouble == "away":
        logged_in.stand_in.stop()
    elif trouble == "stalled":
        service.by_key[OTHER_KEY].answer = _for_ever
    elif trouble == "refused":
        del service.by_key[OTHER_KEY]
    else:
        service.by_key[OTHER_KEY].answer = _only_tokens(service.by_key[OTHER_KEY].answer)
    login(logged_in, OTHER_KEY)
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: _fails(lambda: os.listdir(logged_in.point)), 45)
    assert "new one" in status_of(logged_in)["condition"]
    assert "Traceback" not in logged_in.log_text()
    login(logged_in, DEMO_KEY)
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: not _fails(lambda: os.listdir(logged_in.point)), 30)
    assert shown(logged_in) == of_a
    assert logged_in.stop() == 0


async def _for_ever(request):
    await trio.sleep(300)


def _only_tokens(answer):
    async def only(request):
        if "token" in request.path:
            return await answer(request)
        return refusal(403, "no")

    return only


def _fails(act) -> bool:
    try:
        act()
    except OSError:
        return True
    return False


def test_the_log_says_of_another_accounts_key_what_is_wrong(logged_in):
    """And its account is not asked again and again."""
    shown(logged_in)
    service = logged_in.stand_in.service
    login(logged_in, OTHER_KEY)
    for tries in (1, 2):
        logged_in.process.send_signal(signal.SIGHUP)
        until(lambda n=tries: status_of(logged_in)["service"]["token"]["failures"] >= n)
    assert _refused(lambda: os.listdir(logged_in.point))
    assert "Traceback" not in logged_in.log_text()
    assert service.by_key[OTHER_KEY].counters.requests["token"] == 1
    assert "another account" in status_of(logged_in)["service"]["token"]["error"]
    assert logged_in.stop() == 0


@pytest.mark.promise("tree-is-the-account")
def test_a_key_of_one_customer_does_not_see_what_a_key_of_several_brought(two):
    """Two keys were taken for those of one customer; then one of them brought another one's."""
    service = two.stand_in.service
    service.by_key[OTHER_KEY].account = objects_of(*A)
    look(two)
    assert start(two, OTHER_KEY) == ""
    service.by_key[OTHER_KEY].account.put(
        flat_item("cccc0000", 400, NOON_MS + 5_000_000, extra={"customerId": "C"})
    )
    shown(two)
    unmount(two)
    start(two, OTHER_KEY)
    until(lambda: "cccc0000" in shown(two))
    unmount(two)
    two.environment["PHONOFS_KEY"] = DEMO_KEY
    assert "cccc0000" not in phonofs(two, "cache", "show", "--list").stdout
    assert set(look(two)) == ids(A)


def test_a_refused_mount_takes_no_command_for_the_former_account(logged_in):
    """Its objects are not asked back either; the status still says why."""
    shown(logged_in)
    request = {"command": "restore", "region": "us-east", "ids": ["aaaa0000"], "days": 7}
    assert "error" not in asked(logged_in, request)
    login(logged_in, OTHER_KEY)
    logged_in.process.send_signal(signal.SIGHUP)
    until(lambda: _refused(lambda: os.listdir(logged_in.point)))
    assert "another account" in asked(logged_in, request)["error"]
    assert "another account" in status_of(logged_in)["condition"]
    assert logged_in.stop() == 0


def asked(mount: Mount, request: dict) -> dict:
    """The answer of the control socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(status_of(mount)["control"])
        client.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(client.makefile().readline())
