"""application/vnd.amazon.eventstream: the frames of InvokeWithResponseStream. Pure.

Rule: one call makes one frame. A reader refuses a frame with a payload of more than 24 MB
(botocore, eventstream.py): the caller splits a larger one.

A frame is, big-endian,

    u32 length of all | u32 length of headers | CRC-32 of these 8 bytes
    headers | payload | CRC-32 of everything before it

and a header is u8 length, name, a byte of type (7 is a string), u16 length, value. Source: Smithy,
"Amazon Event Stream Specification". The service model has no exceptions in this stream: an error
after the first frame is in the ErrorCode of the last.
"""

from __future__ import annotations

import struct
from zlib import crc32

import msgspec

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_STRING = 7
_LENGTHS = struct.Struct(">II")
_CRC = struct.Struct(">I")
# Two lengths and their CRC before the headers, and a CRC at the end.
_AROUND = 16


class _InvokeComplete(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    error_code: str = ""
    error_details: str = ""
    log_result: str = ""


def encode(headers: dict[str, str], payload: bytes) -> bytes:
    """Return the frame with these headers, all of them strings; struct.error if one is too long."""
    encoded = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    lengths = _LENGTHS.pack(_AROUND + len(encoded) + len(payload), len(encoded))
    message = b"".join((lengths, _CRC.pack(crc32(lengths)), encoded, payload))
    return message + _CRC.pack(crc32(message))


def payload_chunk(payload: bytes) -> bytes:
    """Return the frame of a piece of the function's answer."""
    return _event("PayloadChunk", "application/octet-stream", payload)


def invoke_complete(error_code: str = "", error_details: str = "", log_result: str = "") -> bytes:
    """Return the last frame. `log_result` is base64; empty members are left out."""
    complete = _InvokeComplete(error_code, error_details, log_result)
    return _event("InvokeComplete", "application/json", msgspec.json.encode(complete))


def _event(event_type: str, content_type: str, payload: bytes) -> bytes:
    headers = {":message-type": "event", ":event-type": event_type, ":content-type": content_type}
    return encode(headers, payload)


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack(
        f">B{len(name)}sBH{len(value)}s", len(name), name, _STRING, len(value), value
    )
