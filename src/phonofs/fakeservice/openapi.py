"""The stand-in's description of itself, OpenAPI 3.1, in our own words. Pure.

Served at ``/openapi.json``, so that a tool which knows nothing of phonofs can test the stand-in
against it. It says what the stand-in does under its default options.
"""

from collections.abc import Sequence
from typing import Any

from phonofs.fakeservice.faults import KINDS

Json = dict[str, Any]

_JSON = "application/json"
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


_SCHEMAS: Json = {
    "Error": _object("message", errorCode={"type": "integer"}, message=_TEXT),
    "Tag": _object("key value", key=_TEXT, value=_TEXT),
    "Record": _object(
        "id type objectName storedBytes createdTime objectState tags",
        id=_TEXT,
        type=_TEXT,
        mimeType=_TEXT,
        objectName=_TEXT,
        checksumType={"const": "MD5"},
        checksum=_TEXT,
        customerId=_TEXT,
        userId=_TEXT,
        storedBytes=_COUNT,
        createdTime=_TEXT,
        updatedTime=_TEXT,
        objectState=_TEXT,
        bucketId=_TEXT,
        tags=_list(_ref("Tag")),
        shared={"type": "boolean"},
    ),
    "Page": _object(
        "lastPage pageKey pageSize content",
        lastPage={"type": "boolean"},
        pageKey=_COUNT,
        pageSize=_COUNT,
        total=_COUNT,
        content=_list(_ref("Record")),
    ),
    "Token": _object(
        "access_token expires_in token_type status",
        access_token=_TEXT,
        expires_in=_TEXT,
        issued_at=_TEXT,
        token_type=_TEXT,
        status=_TEXT,
    ),
    "PresignedUrl": _object("url", url=_TEXT),
}


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_PAGING = [
    _query("filter", {"type": "string", "examples": ["type==callrecording"]}),
    _query("pageKey", {"type": "integer", "minimum": 0, "maximum": 10**9}),
    _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}),
    _query("sortField", _TEXT),
    _query("sortDirection", {"enum": ["ASC", "DESC"]}),
]
_PRESIGN = [
    _query("presignUrl", {"type": "boolean"}),
    _query("presignTtlSeconds", {"type": "integer", "minimum": 1, "maximum": 999_999_999}),
]
_DAYS = {
    "type": "object",
    "properties": {"expirationDays": {"type": "integer", "minimum": 1, "maximum": 10}},
}


def description(url: str, regions: Sequence[str], ids: Sequence[str]) -> Json:
    """The description, for a stand-in whose api origin is ``url``.

    ``regions`` are those it answers for, ``ids`` some of its objects, for a tool to try.
    """
    region = _in_path("region", {"enum": list(regions)})
    paths: Json = {"/oauth/v2/token": {"post": _token()}}
    for path, method, operation in _storage(ids):
        full = f"/storage/{{region}}/v3{path}"
        paths.setdefault(full, {"parameters": [region]})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stand-in for the 8x8 Cloud Storage Service",
            "version": "3",
            "description": f"Kinds of requests, for fault plans: {', '.join(sorted(KINDS))}.",
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _storage(ids: Sequence[str]) -> list[tuple[str, str, Json]]:
    one_of = {"anyOf": [{"enum": list(ids)}, _TEXT]} if ids else _TEXT
    id = [_in_path("id", one_of)]
    content = _operation("Content, or a presigned URL", "*/*", {}, [*id, *_PRESIGN])
    content["responses"] |= {str(status): {"description": "see HTTP"} for status in (206, 302, 416)}
    restore = _operation("Ask for an archived object back", _JSON, _DAYS, id, _DAYS)
    search = _operation("Search", _JSON, _ref("Page"), _PAGING)
    search["responses"] |= _errors(500)  # of a time in a filter that is no number
    return [
        ("/regions", "get", _operation("Regions that hold something", _JSON, _list(_TEXT))),
        ("/objects", "get", search),
        ("/objects/{id}", "get", _operation("A record", _JSON, _ref("Record"), id)),
        ("/objects/{id}/metadata", "get", _operation("A record", _JSON, _ref("Record"), id)),
        ("/objects/{id}/content", "get", content),
        ("/objects/{id}/restore", "post", restore),
        ("/bulk", "delete", _refused()),
    ]


def _operation(
    summary: str,
    content_type: str,
    schema: Json,
    parameters: list[Json] | None = None,
    body: Json | None = None,
) -> Json:
    operation: Json = {
        "summary": summary,
        "security": [{"token": []}],
        "parameters": parameters or [],
        "responses": {
            "200": {"description": "done", "content": {content_type: {"schema": schema}}},
            **_errors(400, 401, 403, 404, 405),
        },
    }
    if body is not None:
        content = {_JSON: {"schema": body}}
        operation["requestBody"] = {"required": False, "content": content}
    return operation


def _errors(*statuses: int) -> Json:
    content = {_JSON: {"schema": _ref("Error")}}
    return {str(status): {"description": "refused", "content": content} for status in statuses}


def _refused() -> Json:
    return {
        "summary": "Never done: the stand-in deletes nothing",
        "security": [{"token": []}],
        "responses": _errors(400, 401, 403, 404, 405),
    }


def _token() -> Json:
    form = {
        "type": "object",
        "required": ["grant_type"],
        "properties": {"grant_type": {"const": "client_credentials"}},
    }
    problem = {"description": "refused", "content": {_JSON: {"schema": _object("error")}}}
    done = {"description": "a token", "content": {_JSON: {"schema": _ref("Token")}}}
    return {
        "summary": "A token",
        "security": [{"key": []}],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        },
        "responses": {"200": done, "400": problem, "401": problem, **_errors(405)},
    }
