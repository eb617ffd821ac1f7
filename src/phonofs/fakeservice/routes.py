"""Finds the kind, handler, region and id of a request. Pure."""

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

from phonofs.fakeservice.responses import Answer, Request, refusal


@dataclass(frozen=True, slots=True)
class Call:
    """A request with its route.

    kind      for counters and fault plans, see :data:`phonofs.fakeservice.faults.KINDS`
    handler   which part of the service answers
    region, id   from the path
    refused   the answer if the path is unknown (404) or the method is not allowed (405)
    """

    request: Request
    kind: str
    handler: str
    region: str = ""
    id: str = ""
    refused: Answer | None = None

    @property
    def asked_offset(self) -> str:
        """The requested ``pageKey``."""
        return self.request.query.get("pageKey", "0")

    def with_query(self, **changes: str) -> "Call":
        """Return the call with changed query parameters."""
        query = {**self.request.query, **changes}
        return replace(self, request=replace(self.request, query=query))

    def without(self, header: str) -> "Call":
        """Return the call without this header."""
        kept = {name: value for name, value in self.request.headers.items() if name != header}
        return replace(self, request=replace(self.request, headers=kept))


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    kind: str
    handler: str


def _table(*rows: tuple[str, str, str, str]) -> tuple[_Route, ...]:
    return tuple(
        _Route(method, re.compile(_expression(path)), kind, handler)
        for method, path, kind, handler in rows
    )


def _expression(path: str) -> str:
    path = path.replace("~", "/storage/{region}/v3")
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)


BUCKET = "cloud-storage-service.s3.us-west-2.amazonaws.com"
"""Part of the path of a presigned URL on the API's own host, from the only published example."""

API = _table(
    ("POST", "/oauth/v2/token", "token", "token"),
    ("GET", "~/regions", "regions", "regions"),
    ("GET", "~/objects", "search", "search"),
    ("GET", "~/objects/{id}", "record", "record"),
    ("GET", "~/objects/{id}/metadata", "record", "metadata"),
    ("GET", "~/objects/{id}/content", "content", "content"),
    ("POST", "~/objects/{id}/restore", "restore", "restore"),
    ("DELETE", "~/bulk", "other", "delete"),
    (
        "GET",
        f"/storage/{{region}}/{BUCKET}/content/EPS/{{customer}}/{{user}}/{{id}}",
        "store",
        "store",
    ),
    ("GET", "/-/{id}", "other", "admin"),
    ("POST", "/-/{id}", "other", "admin"),
)

STORE = _table(("GET", "/store/{region}/objects/{id}", "store", "store"))


def route(request: Request) -> Call:
    """Return the call for a request; with ``refused`` set if the path or method is unknown."""
    found = [
        (each, match)
        for each in (API if request.origin == "api" else STORE)
        if (match := each.pattern.fullmatch(request.path))
    ]
    if not found:
        return Call(request, "other", "", refused=refusal(404, "no such path"))
    for each, match in found:
        if each.method == request.method:
            return _call(request, each, match)
    allowed = ", ".join(sorted({each.method for each, _ in found}))
    refused = refusal(405, "method not allowed", allow=allowed)
    return Call(request, found[0][0].kind, "", refused=refused)


def _call(request: Request, found: _Route, match: re.Match[str]) -> Call:
    parts = {name: unquote(value, errors="replace") for name, value in match.groupdict().items()}
    kind = found.kind
    if kind == "content" and wants_presigned(request):
        kind = "presign"
    return Call(request, kind, found.handler, parts.get("region", ""), parts.get("id", ""))


def wants_presigned(request: Request) -> bool:
    """Whether the request has ``presignUrl=true``."""
    return request.query.get("presignUrl", "").lower() == "true"
