"""Finds the kind, handler, region and id of a request. Pure."""

import re
from dataclasses import replace
from urllib.parse import unquote

from phonofs.fakeservice.responses import Request

BUCKET = "cloud-storage-service.s3.us-west-2.amazonaws.com"
"""Part of the path of a presigned URL on the API's own host, from the only published example."""

_ROUTES = [
    (origin, method, re.compile(path.replace("~", "/storage/(?P<region>[^/]+)")), kind, handler)
    for origin, method, path, kind, handler in (
        ("api", "POST", "/oauth/v2/token", "token", "token"),
        ("api", "GET", "~/v3/regions", "regions", "regions"),
        ("api", "GET", "~/v3/objects", "search", "search"),
        ("api", "GET", "~/v3/objects/(?P<id>[^/]+)", "record", "record"),
        ("api", "GET", "~/v3/objects/(?P<id>[^/]+)/content", "content", "content"),
        ("api", "POST", "~/v3/objects/(?P<id>[^/]+)/restore", "restore", "restore"),
        ("api", "DELETE", "~/v3/bulk", "other", "delete"),
        ("api", "GET", f"~/{BUCKET}/content/EPS/[^/]+/[^/]+/(?P<id>[^/]+)", "store", "store"),
        ("api", "POST", "/-/(?P<id>[^/]+)", "other", "admin"),
        ("store", "GET", "/store/(?P<region>[^/]+)/objects/(?P<id>[^/]+)", "store", "store"),
    )
]


def routed(request: Request) -> Request:
    """Return the request with its route.

    Its handler is "" if the path is unknown, and "wrong_method" if only the method is.
    """
    found = request
    for origin, method, path, kind, handler in _ROUTES:
        match = path.fullmatch(request.path) if origin == request.origin else None
        if match is None:
            continue
        if method != request.method:
            found = replace(request, kind=kind, handler="wrong_method")
            continue
        named = {name: unquote(text, errors="replace") for name, text in match.groupdict().items()}
        if kind == "content" and request.query.get("presignUrl", "").lower() == "true":
            kind = "presign"
        region, id = named.get("region", ""), named.get("id", "")
        return replace(request, kind=kind, handler=handler, region=region, id=id)
    return found
