"""Where the door answers otherwise than SeaweedFS, and why.

A call of ``calls.py``, or the beginning of the names of several with ``*``; then the field, and the
reason. Where the status differs, so may all other fields. A test fails on a difference that is not
here, and on one that is here and is none.
"""

from fnmatch import fnmatchcase

WHOLE_HEAD = "SeaweedFS takes no Range with HEAD; Amazon's server does, as RFC 9110 allows"
NOT_ENCODED = (
    "SeaweedFS does not encode what it repeats of the request, though encoding-type is url"
)
OWNER = "the name of the one who owns all objects"
NO_FOLDERS = "folders are no objects here, as at Amazon's; SeaweedFS makes some of them"
AS_IT_IS = "a key is taken as it is, as at Amazon's; SeaweedFS makes one slash of two"
IGNORED = "a Range that is none is ignored (RFC 9110, 14.2), as at Amazon's"
ARCHIVED = "archived content has to be restored first; SeaweedFS only keeps the name of the class"
PARTS = "a read-only door knows nothing of parts"

DIFFERENCES: dict[str, dict[str, str]] = {
    "head the bucket": {"BucketRegion": "SeaweedFS says nothing of regions"},
    "list: many keys": {"MaxKeys": "the most that a page can have, as at Amazon's: 1000"},
    "list: with owners": {"Contents.Owner": OWNER},
    "list: a false token": {"status": "refused, as at Amazon's; SeaweedFS gives an empty page"},
    "list: after a prefix": dict.fromkeys(
        ("CommonPrefixes", "KeyCount"),
        "2026/2026-01/… is behind 2026/2026-01, but SeaweedFS leaves that folder out",
    ),
    "list: a key": {"Prefix": NOT_ENCODED},
    "list: a key, by folders": {"Prefix": NOT_ENCODED},
    "list: a key as a folder": {"Prefix": NOT_ENCODED},
    "list: as they are": {"Prefix": NOT_ENCODED},
    "list v1: all": {"Contents.Owner": OWNER},
    "list v1: seven keys": {"Contents.Owner": OWNER},
    "list v1: after a key": {"Contents.Owner": OWNER, "NextMarker": NOT_ENCODED},
    "get: archived": {"status": ARCHIVED},
    "*: a folder with its slash": {"status": NO_FOLDERS},
    "*: with dots": {"status": "one more key that is not there; SeaweedFS refuses the URL"},
    "*: with two slashes": {"status": AS_IT_IS},
    **{
        f"head: range {text}": {"status": WHOLE_HEAD}
        for text in (
            "0-",
            "0-0",
            "5-9",
            "100-",
            "-7",
            "-0",
            "-999999999",
            "0-999999999",
            "999999999-",
        )
    },
    "head: a part of this": {"status": WHOLE_HEAD},
    "get: range 9-5": {"status": IGNORED},
    "get: range x-y": {"status": IGNORED},
    "*: part 1": {"status": PARTS},
}


def reasons(call: str) -> dict[str, str]:
    """Return the fields of a call that differ, each with its reason."""
    return {
        field: reason
        for pattern, fields in DIFFERENCES.items()
        if fnmatchcase(call, pattern)
        for field, reason in fields.items()
    }
