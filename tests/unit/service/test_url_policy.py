"""Where answers may lead: URLs are input."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.errors import Malformed, UsageError
from phonofs.service.url_policy import Origin, UrlPolicy, origin_of

API = "https://api.example.com"


@pytest.mark.parametrize(
    "url", ["http://api.example.com", "ftp://x", "api.example.com", "https://"]
)
def test_the_service_is_https(url: str) -> None:
    """Anything else would show the secret to others."""
    with pytest.raises(UsageError):
        UrlPolicy(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8801", "http://localhost:1", "http://[::1]:5"])
def test_plain_http_is_for_this_machine(url: str) -> None:
    """The stand-in needs it."""
    targets = UrlPolicy(url)
    assert targets.target(f"{url}/x") == f"{url}/x"
    assert targets.target("http://127.0.0.1:9999/store") == "http://127.0.0.1:9999/store"


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("https://s3.example.net/b?X=1&y=%2F", "https://s3.example.net/b?X=1&y=%2F"),
        ("/elsewhere?q", "https://api.example.com/elsewhere?q"),
        ("//other.example.com/x", "https://other.example.com/x"),
        ("https://s3.example.net:8443/b#part", "https://s3.example.net:8443/b"),
        ("https://93.184.216.34/x", "https://93.184.216.34/x"),
        ("https://my_bucket.example.net/x", "https://my_bucket.example.net/x"),
        ("https://" + "a" * 63 + ".net./x", "https://" + "a" * 63 + ".net./x"),
        ("https://[2606:2800:220:1::1]/x", "https://[2606:2800:220:1::1]/x"),
        ("https://[64:ff9b::808:808]/x", "https://[64:ff9b::808:808]/x"),
    ],
)
def test_where_answers_may_lead(url: str, absolute: str) -> None:
    """Public https hosts, also relative to the answer's own URL."""
    assert UrlPolicy(API).target(url, f"{API}/a/b") == absolute


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://s3.example.net/x",
        "ftp://s3.example.net/x",
        "file:///etc/passwd",
        "https:///x",
        "https://user@s3.example.net/x",
        "https://user:pw@s3.example.net/x",
        "https://@s3.example.net/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://0x7f.0.0.1/x",
        "https://0x7f000001/x",
        "https://2130706433/x",
        "https://0177.0.0.1/x",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://a.localhost/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://[64:ff9b::a00:1]/x",
        "https://[64:ff9b:1::808:808]/x",
        "https://[::127.0.0.1]/x",
        "https://[::10.0.0.1]/x",
        "https://[::ffff:0:127.0.0.1]/x",
        "https://[2002:7f00:1::1]/x",
        "https://[2002:a00:1::1]/x",
        "https://[2606:2800:220:1:0:5efe:10.0.0.1]/x",
        "https://[2606:2800:220:1:200:5efe:127.0.0.1]/x",
        "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/x",
        "https://[fec0::1]/x",
        "https://[5f00::1]/x",
        "https://[::]/x",
        "https://[ff0e::1]/x",
        "https://[fe80::1%25eth0]/x",
        "https://[fd00::1]/x",
        "https://10.0.0.1/x",
        "https://172.16.5.5/x",
        "https://192.168.1.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
        "https://s3..example.net/x",
        "https://" + "a" * 64 + ".example.net/x",
        "https://" + "a." * 130 + "net/x",
        "https://-a.example.net/x",
        "https://a-.example.net/x",
        "https://s3.example.net:99999/x",
        "https://s3.exa mple.net/x",
        "https://s3.example.net/\r\nX: y",
        "https://ex\u00e4mple.net/x",
        "https://s3.example.net/" + "x" * 9000,
    ],
)
def test_where_answers_may_not_lead(url: str) -> None:
    """Not to plain http, a user, this machine, its network, or what only looks like a name."""
    with pytest.raises(Malformed) as caught:
        UrlPolicy(API).target(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%lo"]
)
def test_a_name_that_resolves_inward_is_refused(address: str) -> None:
    """The address a connection really has is looked at before anything is sent."""
    with pytest.raises(Malformed, match="private address"):
        UrlPolicy(API).check_address(address)
    UrlPolicy("http://localhost:1").check_address(address)


def test_a_service_inside_may_lead_inside() -> None:
    """One in a private network may point to others there, though not to this machine."""
    targets = UrlPolicy("https://10.0.0.5")
    assert targets.target("https://10.0.0.6/x")
    with pytest.raises(Malformed):
        targets.target("https://127.0.0.1/x")
    with pytest.raises(Malformed):
        targets.target("https://169.254.169.254/x")


def test_origins() -> None:
    """Case and default ports do not make another origin."""
    assert origin_of(httpx.URL("https://API.example.com/x")) == Origin(
        "https", "api.example.com", 443
    )
    assert origin_of(httpx.URL("http://[::1]:8/x")) == Origin("http", "::1", 8)


@given(st.text(max_size=60) | st.from_regex(r"https?://[ -~]{0,40}", fullmatch=True))
def test_any_text_leads_somewhere_public_or_nowhere(text: str) -> None:
    """No other error, and whatever passes is https."""
    try:
        url = UrlPolicy(API).target(text, f"{API}/x")
    except Malformed:
        return
    assert url.lower().startswith("https://")
    assert origin_of(httpx.URL(url)).host
