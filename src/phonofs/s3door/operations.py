"""Says which operation a request is. Pure.

The names are those of the Amazon S3 API Reference. The door is read-only, and knows one bucket, so
all other operations are refused alike.
"""

from enum import Enum, auto

from phonofs.s3door.errors import S3Error
from phonofs.s3door.request import Request


class Operation(Enum):
    """What the door can be asked for."""

    LIST_BUCKETS = auto()
    HEAD_BUCKET = auto()
    GET_BUCKET_LOCATION = auto()
    LIST_OBJECTS = auto()
    LIST_OBJECTS_V2 = auto()
    HEAD_OBJECT = auto()
    GET_OBJECT = auto()
    RESTORE_OBJECT = auto()


SUBRESOURCES = frozenset(
    """
    abac accelerate acl analytics annotation append attributes cors delete encryption
    intelligent-tiering inventory legal-hold lifecycle location logging metadataAnnotationTable
    metadataConfiguration metadataInventoryTable metadataJournalTable metadataTable metrics
    notification object-lock ownershipControls partNumber policy policyStatus publicAccessBlock
    renameObject replication requestPayment restore retention select session tagging torrent
    uploadId uploads versionId versioning versions website
    """.split()  # noqa: SIM905 - read as a list of words
)
"""The parameters of a query that name another operation than the method and the path do.

Other parameters are ignored as Amazon's server does; clients add ``x-id`` to name the operation.
"""


def operation_of(request: Request) -> Operation:
    """Return the operation of a request. Raises S3Error: MethodNotAllowed for all others."""
    subresources = SUBRESOURCES.intersection(request.parameters)
    found = _found(request, subresources)
    if found is None:
        raise S3Error("MethodNotAllowed", "this server is read-only, and does not have that")
    return found


def _found(request: Request, subresources: frozenset[str]) -> Operation | None:
    match request.method, bool(request.bucket), bool(request.key), sorted(subresources):
        case "GET", False, _, []:
            return Operation.LIST_BUCKETS
        case "HEAD", True, False, []:
            return Operation.HEAD_BUCKET
        case "GET", True, False, ["location"]:
            return Operation.GET_BUCKET_LOCATION
        case "GET", True, False, []:
            is_second = request.parameters.get("list-type") == "2"
            return Operation.LIST_OBJECTS_V2 if is_second else Operation.LIST_OBJECTS
        case "HEAD", True, True, []:
            return Operation.HEAD_OBJECT
        case "GET", True, True, []:
            return Operation.GET_OBJECT
        case "POST", True, True, ["restore"]:
            return Operation.RESTORE_OBJECT
    return None
