"""Decides where requests may go, and by which proxy. Pure.

The token goes to the service's own origin only.

A URL in a response (a redirect, a presigned URL) is untrusted input. It must be https, must not
hold a user name, and must not lead from a public service to this machine or its network. Host names
are checked here as text. Each address that a name resolves to is checked again
(:meth:`UrlPolicy.check_address`) before a connection to it is opened, so that a name cannot resolve
to a private address, and redirects cannot be used to scan the internal network.

Proxies are those in the environment (``https_proxy``, ``all_proxy``, ``no_proxy``).
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx

from phonofs.config import is_loopback
from phonofs.errors import Malformed, UsageError

LONGEST_URL = 8192
MOST_HOPS = 5

_PORTS = {"http": 80, "https": 443}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}\.?", re.ASCII)
"""A DNS name (RFC 1035, 2.3.4: a label has at most 63 characters); underscores are allowed because
buckets may have them."""

_NUMBER = re.compile(r"(0x[0-9a-f]*|\d+)", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_EMBEDDING = [
    (ipaddress.IPv6Network(network), place)
    for network, place in (
        ("::ffff:0:0/96", 12),  # IPv4-mapped (RFC 4291, 2.5.5.2)
        ("::ffff:0:0:0/96", 12),  # IPv4-translated (RFC 7915)
        ("64:ff9b::/96", 12),  # NAT64 (RFC 6052)
        ("2002::/16", 2),  # 6to4 (RFC 3056)
        ("::/96", 12),  # IPv4-compatible (RFC 4291, 2.5.5.1)
    )
]
"""IPv6 networks whose addresses embed an IPv4 address, and the offset in bytes where it starts."""

_ISATAP = re.compile(rb".{8}[\x00\x02]\x00\x5e\xfe.{4}", re.DOTALL)
"""ISATAP, under any prefix (RFC 5214, 6.1); the last four bytes are the IPv4 address."""

_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "fec0::/10",  # site-local (RFC 3879)
        "64:ff9b:1::/48",  # NAT64 of a network's own (RFC 8215)
        "2001::/32",  # Teredo (RFC 4380)
        "5f00::/16",  # SRv6 (RFC 9602)
    )
]
"""Special-purpose networks that some versions of :mod:`ipaddress` consider public."""


class Origin(NamedTuple):
    """Scheme, host (lower case) and port, to which a secret or a connection belongs."""

    scheme: str
    host: str
    port: int


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of an http(s) URL. Raises ValueError if it has none."""
    if url.scheme not in _PORTS or not url.raw_host or (url.port or 0) >= 1 << 16:
        raise ValueError("not an http or https URL with a host")
    return Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])


class UrlPolicy:
    """Decides which URLs may be requested: those of ``api_url`` with the token, others without.

    ``api`` is the origin of ``api_url``, the only one that ever receives the token.
    """

    def __init__(self, api_url: str) -> None:
        """Raise UsageError unless ``api_url`` is https, or http to a loopback address."""
        try:
            self.api = origin_of(httpx.URL(api_url))
        except (ValueError, httpx.InvalidURL):
            raise UsageError("api_url must look like https://HOST") from None
        self._local = is_loopback(self.api.host)
        if self.api.scheme != "https" and not self._local:
            raise UsageError("api_url must be https; plain http is for a loopback address only")
        address = _address(self.api.host)
        self._private = address is not None and address.is_private

    def target(self, url: str, base: str = "") -> str:
        """Return the absolute URL that a response points to; relative ones are joined to ``base``.

        Raises Malformed if it must not be followed; the message never quotes the URL's query.
        """
        if len(url) > LONGEST_URL or not re.fullmatch(r"[!-~]+", url):
            raise Malformed("the service points to something that is not a URL")
        try:
            absolute = urldefrag(urljoin(base, url)).url
            origin = origin_of(httpx.URL(absolute))
        except (ValueError, httpx.InvalidURL):
            raise Malformed("the service points to something that is not a URL") from None
        if "@" in urlsplit(absolute).netloc:
            raise Malformed(f"the service points to {origin.host} with a user name: refused")
        if origin != self.api:
            self._check_host(origin)
        return absolute

    def check_address(self, text: str) -> None:
        """Raise Malformed if a server outside the service's origin must not have this address."""
        address = _address(text)
        if address is None or self._local:
            return
        inside = address.is_loopback or address.is_link_local or address.is_unspecified
        if inside or not (self._private or _is_public(address)):
            raise Malformed(f"the service points to the private address {text}: refused")

    def _check_host(self, origin: Origin) -> None:
        name = origin.host.rstrip(".")
        loopback = is_loopback(name) or name.endswith(".localhost")
        if loopback and not self._local:
            raise Malformed("the service points to this very machine: refused")
        if origin.scheme != "https" and not loopback:
            raise Malformed(f"the service points to {origin.host} without https: refused")
        if _address(origin.host) is not None:
            self.check_address(origin.host)
        elif not _NAME.fullmatch(origin.host) or _looks_like_number(origin.host):
            raise Malformed("the service points to a host whose name cannot be used: refused")


def _address(host: str) -> _Address | None:
    """Return the IP address in ``host``, None if it is a name.

    If an IPv6 address embeds an IPv4 address, returns the latter.
    """
    try:
        address: _Address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_loopback or address.is_unspecified:
            return address
        for network, place in _EMBEDDING:
            if address in network:
                return ipaddress.IPv4Address(address.packed[place : place + 4])
        if _ISATAP.fullmatch(address.packed):
            return ipaddress.IPv4Address(address.packed[-4:])
    return address


def _is_public(address: _Address) -> bool:
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def _looks_like_number(host: str) -> bool:
    """Return whether a resolver may read the name as an address.

    Examples are ``127.1``, ``0x7f.1`` and ``2130706433``; :mod:`ipaddress` does not accept them.
    """
    return bool(_NUMBER.fullmatch(host.rstrip(".").rsplit(".", 1)[-1]))


def proxy_for(origin: Origin, proxies: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for a server; None if it is reached directly, like loopback.

    ``proxies`` are as :func:`urllib.request.getproxies` returns them.
    """
    if not proxies or is_loopback(origin.host):
        return None
    if _is_excepted(f"{origin.host}:{origin.port}", proxies.get("no", "")):
        return None
    found = proxies.get(origin.scheme) or proxies.get("all")
    if found and "://" not in found:
        return f"http://{found}"
    return found


def through(host: str, proxy: str | None) -> str:
    """Return the host for a message, with the proxy if there is one; never with its password."""
    if proxy is None:
        return host
    return f"{host} (by way of the proxy {urlsplit(proxy).hostname or 'in the environment'})"


def _is_excepted(place: str, exceptions: str) -> bool:
    """Return whether ``no_proxy`` covers ``host:port``.

    Its entries are hosts, domains (which include their subdomains), or ``*``.
    """
    host = place.rpartition(":")[0]
    for word in exceptions.lower().replace(",", " ").split():
        name = word.lstrip("*").lstrip(".")
        if not name or any(x == name or x.endswith(f".{name}") for x in (host, place)):
            return True
    return False
