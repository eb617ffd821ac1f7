"""Compresses the JSON of a record for the catalogue. Pure.

Deflate with a dictionary of what all records have in common: 1.3 KB become 200 to 350 bytes in
20 µs, so that a million records take 300 MB instead of 1.3 GB. The dictionary is part of the file
format: it must never change; a new one needs a new mark.
"""

import zlib

_WORDS = (
    '"transcription-processed","media-processed","sourceObjectType","sourceObjectId","sourceId",'
    '"pcsQuestionNumber","pcsId","callSnippetId","billingTelephoneNumber","mediaUrl","speaker",'
    '"owner","external","language","sentiment","PENDING","ARCHIVED","REVOKED","application/json",'
    '"text/plain","audio/wav","video/mp4",".json",".wav",".mp4",".agentnotes","transcription",'
    '"agentnotes","postcallsurvey","sentimentScore","summary","screenrecording","voicemail",'
    '"callcentervoicemail","voicecommentrecording","meeting","branchId","tenantId","int-18",'
    '"-phone-00-","-vmail-00-","agentId","agentName","queueName","queueNumber","channelName",'
    '"holdDuration","value":"0"},{"key":"transactionId","value":"1"},{"key":"callerName","value":'
    '"+1"},{"key":"calleeName","value":""},{"key":"callerId","value":"+1"},{"key":"calleeId",'
    '"value":"+44"},{"key": "callId", "value": "1"}, {"key": "duration", "value": "000"}, '
    '"extensionId","ipbxid","pbxId","callLogId","INBOUND","userEmail","@example.com",'
    '{"id":"","type":"callcenterrecording","mimeType":"audio/mpeg","objectName":"ipbx:'
    ':callrecording:users::16-16--+1_E.mp3","checksumType":"MD5","checksum":"-1","customerId":"00'
    'QAT","userId":"","storedBytes":,"createdTime":"2024-0T0:00:00","updatedTime":"2024-0T0:00:00"'
    ',"objectState":"AVAILABLE","bucketId":"","tags":[{"key":"guid","value":""},{"key":"callId",'
    '"value":"16"},{"key":"address","value":"+1"},{"key":"endTime","value":"17"},{"key":"branchId"'
    ',"value":""},{"key":"duration","value":"000"},{"key":"userName","value":""},{"key":'
    '"direction","value":"OUTBOUND"},{"key":"startTime","value":"17"},{"key":"userEmail","value":'
    '"@"},{"key":"extensionNumber","value":"1"},{"key":"media-processed","value":"true"}],'
    '"shared":false}'
)

_WINDOW = -12
"""4 KiB, enough for the dictionary and a record; raw deflate, since the row has the CRC."""

_EMPTY = zlib.compressobj(1, zlib.DEFLATED, _WINDOW, 5, zlib.Z_DEFAULT_STRATEGY, _WORDS.encode())
_MARK = b"\x01"


def pack(text: bytes) -> bytes:
    """Return ``text`` compressed; the first byte marks the method."""
    deflate = _EMPTY.copy()
    return _MARK + deflate.compress(text) + deflate.flush()


def unpack(packed: bytes) -> bytes:
    """Return the text. Raises ValueError if :func:`pack` did not make ``packed``."""
    if packed[:1] != _MARK:
        raise ValueError("packed in an unknown way")
    try:
        return zlib.decompressobj(_WINDOW, _WORDS.encode()).decompress(packed[1:])
    except zlib.error as error:
        raise ValueError(f"not packed text: {error}") from error
