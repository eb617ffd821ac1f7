"""Through a company's proxy that looks into TLS with an authority of its own."""

import subprocess
import sys
from functools import partial

import pytest
import trio

from phonofs.errors import PhonofsError, Unavailable, Untrusted
from phonofs.fakeservice.options import Options
from phonofs.model import Query
from tests.fault.proxy import API, STORE, CompanyProxy, ProxiedStandIn
from tests.fault.scene import fast, living, outcome, standing, until
from tests.support.accounts import content_of, flat
from tests.support.authority import Authority
from tests.support.mounts import files, mounted

PASSWORD = "canary-4711"

# httpcore leaves generators of bodies that were broken off to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning"
)


@pytest.mark.parametrize("way", ["range", "presign", "redirect", "stream"])
@pytest.mark.parametrize("password", ["", PASSWORD])
@fast
async def test_all_goes_through_the_proxy(tmp_path, monkeypatch, way, password):
    """Token, listing and content of every way, the store's too; the token to the service only."""
    proxy = CompanyProxy(Authority(tmp_path), password)
    async with (
        standing(flat(5000, 6 << 20), Options(content=way)) as service,
        proxy.before(service),
    ):
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        async with living(service, tmp_path) as scene:
            for ino in (await scene.tree()).values():
                assert await outcome(scene, ino, 20.0) == "right"
        assert proxy.connects[API]
        assert bool(proxy.connects[STORE]) == (way in ("presign", "redirect"))
        assert proxy.refused == 0
        for seen in service.counters.seen:
            assert "proxy-authorization" not in seen.headers
            assert seen.origin == "api" or "authorization" not in seen.headers


async def _fails(service, tmp_path, kind, match):
    with pytest.RaisesGroup(
        pytest.RaisesExc(kind, match=match), allow_unwrapped=True, flatten_subgroups=True
    ):
        async with living(service, tmp_path, patience=0, read_deadline="5s", timeout="1s"):
            pass


@pytest.mark.expected_log("certificate", "no token")
@fast
async def test_an_authority_that_the_system_does_not_know(tmp_path, monkeypatch):
    """Refused with a sentence that names the remedy, and nothing was asked of the service."""
    proxy = CompanyProxy(Authority(tmp_path))
    async with standing(flat(1000)) as service, proxy.before(service):
        monkeypatch.setenv("HTTPS_PROXY", proxy.environment["HTTPS_PROXY"])
        await _fails(service, tmp_path, Untrusted, "trust store")
        assert proxy.connects[API]
        assert not service.counters.seen


@pytest.mark.expected_log("no token")
@fast
async def test_a_proxy_that_refuses_is_named(tmp_path, monkeypatch):
    """Without the password, to a host it does not let pass, or gone: an error that says so."""
    proxy = CompanyProxy(Authority(tmp_path), PASSWORD)
    async with standing(flat(1000)) as service, proxy.before(service):
        monkeypatch.setenv("SSL_CERT_FILE", proxy.environment["SSL_CERT_FILE"])
        url = proxy.environment["HTTPS_PROXY"]
        monkeypatch.setenv("HTTPS_PROXY", url.replace(f"worker:{PASSWORD}@", ""))
        await _fails(service, tmp_path, Unavailable, r"by way of the proxy 127\.0\.0\.1.*407")
        assert proxy.refused
        monkeypatch.setenv("HTTPS_PROXY", url)
        service.url = "https://elsewhere.phonofs.test"
        await _fails(service, tmp_path, Unavailable, "answers 502")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        await _fails(service, tmp_path, Unavailable, "proxy.*refused")
        assert not service.counters.seen


INWARD = [
    "https://127.0.0.1:{port}/x",
    "http://localhost:{port}/x",
    "https://[::ffff:127.0.0.1]:{port}/x",
    "https://10.0.0.1/x",
    "https://169.254.169.254/latest/meta-data",
    "http://store.phonofs.test/x",
    "http://api.phonofs.test/x",
    "https://user@store.phonofs.test/x",
]
"""Into this machine, into its network, and out of TLS."""


async def _has_fired(faults):
    return faults.fired["fault"] > 0


@pytest.mark.expected_log
@pytest.mark.parametrize("kind", ["content", "search", "token", "store"])
@fast
async def test_a_real_host_leads_neither_inward_nor_out_of_tls(tmp_path, monkeypatch, kind):
    """Redirects of every kind of answer: an error, and nobody there was asked for anything."""
    knocks = []

    async def canary(stream):
        knocks.append(stream)

    proxy = CompanyProxy(Authority(tmp_path))
    way = "redirect" if kind == "store" else "range"
    async with (
        standing(flat(*[1000] * len(INWARD)), Options(content=way)) as service,
        proxy.before(service),
        trio.open_nursery() as nursery,
    ):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, canary, [listener])
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        async with living(service, tmp_path, read_deadline="3s", timeout="1s") as scene:
            inodes = (await scene.tree()).values()
            for ino, to in zip(inodes, INWARD, strict=True):
                to = to.format(port=listener.socket.getsockname()[1])
                faults = scene.faults({"kind": kind, "fail": "redirect", "to": to, "name": "fault"})
                if kind == "token":
                    service.tokens.revoke()
                    scene.app.token.retry_now()
                if kind == "search":
                    with pytest.raises(PhonofsError):
                        await scene.app.client.search("us-east", Query())
                else:
                    assert await outcome(scene, ino, 3.0) != "right", to
                await until(partial(_has_fired, faults), 60, 0.2)
        nursery.cancel_scope.cancel()
    assert knocks == []
    assert set(proxy.connects) <= {API, STORE}


@pytest.mark.fuse
def test_a_mount_behind_a_company_proxy(tmp_path, monkeypatch):
    """The program as a user starts it, with nothing but the environment; no password in its log."""
    stand_in = ProxiedStandIn(flat(5000, 3 << 20), Options(content="redirect"))
    stand_in.proxy = CompanyProxy(Authority(tmp_path), PASSWORD)
    stand_in.start()
    try:
        for name, value in stand_in.proxy.environment.items():
            monkeypatch.setenv(name, value)
        with mounted(stand_in.url, tmp_path, log_level="debug") as mount:
            for number, path in enumerate(files(mount.point)):
                assert path.read_bytes() == content_of(stand_in.service, f"{number:08d}")
            doctor = subprocess.run(
                [sys.executable, "-m", "phonofs.cli", "doctor"],
                env=mount.environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert PASSWORD not in doctor.stdout + mount.log_text()
        assert stand_in.proxy.connects[API]
        assert stand_in.proxy.connects[STORE]
    finally:
        stand_in.stop()
