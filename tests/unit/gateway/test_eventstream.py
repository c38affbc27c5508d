"""Tests of event stream frames: what we write is what botocore reads."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from botocore.parsers import create_parser
from botocore.session import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.gateway import eventstream

if TYPE_CHECKING:
    from collections.abc import Iterator

quick = settings(
    deadline=None, database=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)


def read(data: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Return headers and payload of every frame, as botocore decodes them."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


class _Body:
    """The part of a urllib3 response that botocore reads a stream with."""

    def __init__(self, data: bytes, size: int) -> None:
        self._pieces = [data[at : at + size] for at in range(0, len(data), size)]

    def stream(self) -> Iterator[bytes]:
        return iter(self._pieces)


@pytest.mark.parametrize(
    ("headers", "payload", "frame"),
    [
        ({}, b"", "00000010 00000000 05c248eb 7d98c8ff"),
        ({}, b"{'foo':'bar'}", "0000001d 00000000 fd528c5a 7b27666f6f273a27626172277d c3653936"),
        (
            {"content-type": "application/json"},
            b"{'foo':'bar'}",
            (
                "0000003d 00000020 07fd8396 0c 636f6e74656e742d74797065 07 0010"
                "6170706c69636174696f6e2f6a736f6e 7b27666f6f273a27626172277d 8d9c08b1"
            ),
        ),
    ],
)
def test_frames_are_those_of_the_specification(
    headers: dict[str, str], payload: bytes, frame: str
) -> None:
    """The lengths, the types and both checksums are where AWS's test vectors have them."""
    assert bytes.fromhex(frame) == eventstream.encode(headers, payload)


@quick
@given(
    sent=st.lists(
        st.tuples(
            st.dictionaries(
                st.text(st.characters(codec="ascii"), min_size=1, max_size=10),
                st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
                max_size=3,
            ),
            st.binary(max_size=50),
        ),
        max_size=4,
    )
)
def test_frames_are_read_as_they_were_written(sent: list[tuple[dict[str, str], bytes]]) -> None:
    """Any headers and payloads come back, one frame after the other."""
    assert sent == read(b"".join(eventstream.encode(*frame) for frame in sent))


def test_a_frame_with_another_byte_is_refused() -> None:
    """The checksums are over what was sent, wherever the byte is."""
    frame = eventstream.payload_chunk(b"hello")
    for place in (3, 7, 20, len(frame) - 5):
        changed = bytearray(frame)
        changed[place] ^= 1

        with pytest.raises(ChecksumMismatch):
            read(bytes(changed) + frame)


def test_a_header_that_is_too_long_is_an_error() -> None:
    """A length that its field cannot hold is not cut."""
    with pytest.raises(struct.error):
        eventstream.encode({"a": "x" * 65536}, b"")


def test_a_payload_chunk_is_an_event_of_octets() -> None:
    """The headers are those that every AWS client looks for."""
    headers = {
        ":message-type": "event",
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
    }

    assert [(headers, b"\0\xff")] == read(eventstream.payload_chunk(b"\0\xff"))


@pytest.mark.parametrize(
    ("parts", "payload"),
    [
        ({}, b"{}"),
        ({"log_result": "TE9H"}, b'{"LogResult":"TE9H"}'),
        (
            {"error_code": "Unhandled", "error_details": "{}", "log_result": "TE9H"},
            b'{"ErrorCode":"Unhandled","ErrorDetails":"{}","LogResult":"TE9H"}',
        ),
    ],
)
def test_invoke_complete_has_what_there_is_to_say(parts: dict[str, str], payload: bytes) -> None:
    """What is empty is left out: an ErrorCode that is there means that the function failed."""
    headers = {
        ":message-type": "event",
        ":event-type": "InvokeComplete",
        ":content-type": "application/json",
    }

    assert [(headers, payload)] == read(eventstream.invoke_complete(**parts))


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_botocore_reads_the_stream_of_an_invocation(size: int) -> None:
    """What InvokeWithResponseStream returns to a boto3 caller, also in pieces of any size."""
    details = '{"errorType":"Boom","errorMessage":"ä"}'
    log = base64.b64encode(b"END RequestId: x").decode()
    sent = (
        eventstream.payload_chunk(b"hello ")
        + eventstream.payload_chunk(b"")
        + eventstream.payload_chunk(b"world\0")
        + eventstream.invoke_complete("Unhandled", details, log)
    )
    model = Session().get_service_model("lambda")
    response: dict[str, Any] = {
        "status_code": 200,
        "headers": {"Content-Type": eventstream.CONTENT_TYPE, "X-Amz-Executed-Version": "7"},
        "body": _Body(sent, size),
        "context": {"operation_name": "InvokeWithResponseStream"},
    }

    shape = model.operation_model("InvokeWithResponseStream").output_shape
    parsed = create_parser("rest-json").parse(response, shape)

    assert [
        {"PayloadChunk": {"Payload": b"hello "}},
        {"PayloadChunk": {"Payload": b""}},
        {"PayloadChunk": {"Payload": b"world\0"}},
        {
            "InvokeComplete": {
                "ErrorCode": "Unhandled",
                "ErrorDetails": details,
                "LogResult": log,
            }
        },
    ] == list(parsed["EventStream"])
    assert "7" == parsed["ExecutedVersion"]
