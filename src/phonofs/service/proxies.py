"""Finds the proxy for a URL in the environment (``https_proxy``, ``all_proxy``, ``no_proxy``)."""

import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from phonofs.config import is_loopback
from phonofs.service.url_policy import Origin


def environment_proxies() -> dict[str, str]:
    """Return the proxies in the environment by scheme; ``no`` holds the exceptions."""
    return urllib.request.getproxies()


def proxy_for(origin: Origin, proxies: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for a server; None if it is reached directly, like loopback."""
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
