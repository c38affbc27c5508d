"""Tests of the wire: every frame arrives whole, and nothing else does."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.worker import wire

# On a busy machine a slow example is no failure.
SLOW = [HealthCheck.too_slow]

quick = settings(deadline=None, database=None, max_examples=100, suppress_health_check=SLOW)

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
sizes = st.integers(min_value=0, max_value=2**40)
heads = st.one_of(
    st.just(wire.ReadyFrame()),
    st.builds(wire.ResponseFrame, id=ids, max_rss_kb=sizes),
    st.builds(wire.FailureFrame, id=ids, max_rss_kb=sizes),
)
frames = st.lists(st.tuples(heads, st.binary(max_size=200)), max_size=5)


def join(sent: list[tuple[wire.FromWorker, bytes]]) -> bytes:
    """Return the bytes of all frames, one after the other."""
    return b"".join(wire.encode(head, body) for head, body in sent)


def raw(head: bytes, body: bytes = b"") -> bytes:
    """Return a frame whose head is any bytes at all."""
    return wire.PREFIX.pack(len(head), len(body)) + head + body


def decode(data: bytes) -> list[tuple[wire.FromWorker, bytes]]:
    """Return the frames in `data`, with a decoder of its own."""
    return wire.Decoder().feed(data)


def test_a_frame_is_two_lengths_a_head_and_a_body() -> None:
    """The layout of workers/PROTOCOL.md: little-endian lengths, JSON, payload."""
    frame = wire.encode(wire.ResponseFrame(id="r1", max_rss_kb=7), b'{"a":1}')

    head = b'{"type":"response","id":"r1","max_rss_kb":7}'
    assert b"\x2c\0\0\0\x07\0\0\0" + head + b'{"a":1}' == frame


def test_init_names_the_handler_and_the_task_root() -> None:
    """The first frame to a worker says where its code is, and its layers if there are any."""
    init = wire.InitFrame(handler="app.handler", task_root="/code", arn="arn:x")
    layered = msgspec.structs.replace(init, layers="/opt")

    head = b'{"type":"init","handler":"app.handler","task_root":"/code","arn":"arn:x"'
    assert raw(head + b"}", b"{}") == wire.encode(init, b"{}")
    assert raw(head + b',"layers":"/opt"}', b"{}") == wire.encode(layered, b"{}")


def test_what_nobody_set_is_not_sent_with_an_invocation() -> None:
    """An invoke frame holds no nulls: the warm path sends only fields that are set."""
    plain = wire.InvokeFrame(id="r1", deadline_ms=5)
    named = wire.InvokeFrame(id="r1", deadline_ms=5, arn="arn:x:live")

    assert raw(b'{"type":"invoke","id":"r1","deadline_ms":5}') == wire.encode(plain)
    assert raw(b'{"type":"invoke","id":"r1","deadline_ms":5,"arn":"arn:x:live"}') == wire.encode(
        named
    )


def test_the_type_comes_at_any_place_in_the_head() -> None:
    """Workers in other languages order the keys of an object as they like."""
    assert [(wire.ResponseFrame(id="r1"), b"")] == decode(raw(b'{"id":"r1","type":"response"}'))


def test_keys_we_do_not_know_are_passed_over() -> None:
    """A worker that is newer than its supervisor is understood."""
    assert [(wire.ReadyFrame(), b"")] == decode(raw(b'{"type":"ready","since":2030}'))


@quick
@given(sent=frames, data=st.data())
def test_frames_arrive_whatever_pieces_they_come_in(
    sent: list[tuple[wire.FromWorker, bytes]], data: st.DataObject
) -> None:
    """What was encoded is decoded, in order, wherever the pipe cuts the bytes."""
    stream = join(sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    decoder = wire.Decoder()

    got = [
        frame
        for start, end in pairwise([0, *cuts, len(stream)])
        for frame in decoder.feed(stream[start:end])
    ]

    assert sent == got
    assert len(decoder) == 0


def test_frames_arrive_byte_by_byte() -> None:
    """A frame is complete with its last byte, and not one sooner."""
    stream = wire.encode(wire.ResponseFrame(id="r1"), b"[1,2]")
    decoder = wire.Decoder()

    early = [decoder.feed(stream[at : at + 1]) for at in range(len(stream) - 1)]

    assert [[]] * (len(stream) - 1) == early
    assert [(wire.ResponseFrame(id="r1"), b"[1,2]")] == decoder.feed(stream[-1:])


def test_the_length_of_a_decoder_is_what_waits() -> None:
    """The bytes of a frame that is not whole are counted, and gone once it is."""
    stream = wire.encode(wire.ReadyFrame(), b"12345")
    decoder = wire.Decoder()

    decoder.feed(stream + stream[:11])
    assert len(decoder) == 11

    decoder.feed(stream[11:])
    assert len(decoder) == 0


def test_nothing_is_no_frame() -> None:
    """An empty piece changes nothing, also in the middle of a frame."""
    stream = wire.encode(wire.ReadyFrame())
    decoder = wire.Decoder()
    decoder.feed(stream[:5])

    assert decoder.feed(b"") == []
    assert [(wire.ReadyFrame(), b"")] == decoder.feed(stream[5:])


@settings(deadline=None, database=None, max_examples=150, suppress_health_check=SLOW)
@given(pieces=st.lists(st.binary(max_size=80), max_size=6))
def test_any_bytes_are_frames_or_a_wire_error(pieces: list[bytes]) -> None:
    """Any bytes of a worker are accepted or raise WireError, and no other error."""
    decoder = wire.Decoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
    except wire.WireError:
        return


@settings(deadline=None, database=None, max_examples=150, suppress_health_check=SLOW)
@given(head=st.binary(max_size=80), body=st.binary(max_size=10))
def test_any_head_is_one_of_ours_or_a_wire_error(head: bytes, body: bytes) -> None:
    """Behind lengths that are right, any bytes are a head or raise WireError."""
    try:
        got = decode(raw(head, body))
    except wire.WireError:
        return

    assert [body] == [each for _, each in got]


@settings(deadline=None, database=None, max_examples=150, suppress_health_check=SLOW)
@given(
    sent=frames.filter(bool),
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_frames_with_wrong_bytes_are_frames_or_a_wire_error(
    sent: list[tuple[wire.FromWorker, bytes]], changes: list[tuple[int, int]]
) -> None:
    """A valid stream with some bytes changed is accepted or raises WireError."""
    stream = bytearray(join(sent))
    for place, value in changes:
        stream[place % len(stream)] = value
    try:
        decode(bytes(stream))
    except wire.WireError:
        return


@quick
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    kind=st.sampled_from(["ready", "response", "failure", "init", "", 1]),
)
def test_any_json_is_a_head_or_a_wire_error(document: object, kind: object) -> None:
    """JSON that is almost a head is a head or a WireError."""
    fields = document if isinstance(document, dict) else {"id": document}
    try:
        head = msgspec.json.encode({"type": kind, **fields})
    except UnicodeEncodeError:
        return
    try:
        decode(raw(head))
    except wire.WireError:
        return


@pytest.mark.parametrize(
    ("head_length", "body_length"),
    [
        (0xFFFFFFFF, 0),
        (0, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (wire.MAX_HEAD + 1, 0),
        (2, wire.MAX_BODY + 1),
    ],
)
def test_a_length_beyond_the_limits_is_refused_before_anything_is_allocated(
    head_length: int, body_length: int
) -> None:
    """A worker that claims 4 GB costs eight bytes; the error has the claim."""
    decoder = wire.Decoder()
    prefix = wire.PREFIX.pack(head_length, body_length)
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError, match=f"{head_length} \\+ {body_length} bytes"):
            decoder.feed(prefix)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000
    assert len(decoder) == 0


def test_a_length_beyond_the_limits_is_refused_in_the_middle_of_a_stream() -> None:
    """The lengths of every frame are checked, not those of the first one only."""
    decoder = wire.Decoder()
    decoder.feed(wire.encode(wire.ReadyFrame()) + b"\xff\xff")

    with pytest.raises(wire.WireError, match="beyond the limits"):
        decoder.feed(b"\xff\xff\0\0\0\0")


def test_the_largest_body_is_not_beyond_the_limits() -> None:
    """6 MB and 100 bytes are what Lambda lets a function answer."""
    body = bytes(wire.MAX_BODY)

    ((head, got),) = decode(wire.encode(wire.ResponseFrame(id="r1"), body))

    assert wire.ResponseFrame(id="r1") == head
    assert body == got


def test_the_largest_head_is_not_beyond_the_limits() -> None:
    """A head may be 64 kB, spaces included."""
    head = b'{"type":"ready"}'.ljust(wire.MAX_HEAD)

    assert [(wire.ReadyFrame(), b"")] == decode(raw(head))


def test_six_megabytes_arrive_in_the_pieces_of_a_pipe() -> None:
    """A body of 6 MB comes in a hundred pieces of 64 kB, and the next frame after it."""
    body = bytes(range(256)) * (6 * 1024 * 1024 // 256)
    stream = wire.encode(wire.ResponseFrame(id="r1"), body) + wire.encode(wire.ReadyFrame())
    decoder = wire.Decoder()

    got = []
    for start in range(0, len(stream), 65536):
        got += decoder.feed(stream[start : start + 65536])

    assert [(wire.ResponseFrame(id="r1"), body), (wire.ReadyFrame(), b"")] == got


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"ready"',
        b'{"type":"ready"}x',
        b'{"type":"invoke","id":"r1","deadline_ms":1,"arn":"a"}',
        b'{"type":"init","handler":"a.b","task_root":"/"}',
        b'{"type":"response"}',
        b'{"type":"response","id":7}',
        b'{"type":"response","id":"r1","max_rss_kb":"7"}',
        b'{"type":"response","id":"r1","max_rss_kb":1e400}',
        b'{"type":"response","id":"\\ud800"}',
        b"\x80\x81\x82",
    ],
)
def test_a_head_that_is_none_of_ours_is_a_wire_error(head: bytes) -> None:
    """No JSON, no object, an unknown type, or a field of another type: all one error."""
    with pytest.raises(wire.WireError, match="a head that is none of ours"):
        decode(raw(head))


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_bad_utf_8_in_a_head_is_a_wire_error(text: bytes) -> None:
    """What msgspec raises as UnicodeDecodeError is a WireError here."""
    with pytest.raises(wire.WireError, match="a head that is none of ours"):
        decode(raw(b'{"type":"response","id":"' + text + b'"}'))


@pytest.mark.parametrize("nested", [b"[", b'{"a":'])
def test_a_head_of_brackets_is_a_wire_error(nested: bytes) -> None:
    """64 kB of brackets exhaust the parser's recursion: that is a WireError."""
    head = b'{"type":"ready","x":' + nested * 12_000

    with pytest.raises(wire.WireError, match="a head that is none of ours"):
        decode(raw(head))


def test_a_number_of_sixty_thousand_digits_is_a_wire_error() -> None:
    """A number too long for Python to print is a WireError."""
    head = b'{"type":"response","id":"r1","max_rss_kb":' + b"9" * 60_000 + b"}"

    with pytest.raises(wire.WireError, match="a head that is none of ours"):
        decode(raw(head))


@pytest.mark.parametrize("kind", ["response", "failure"])
@pytest.mark.parametrize("digits", ["9" * 4299, "-1", str(2**40 + 1), str(2**63)])
def test_a_memory_that_no_machine_has_is_a_wire_error(kind: str, digits: str) -> None:
    """max_rss_kb goes into the REPORT line: it is from 0 to 2**40, a petabyte."""
    head = f'{{"type":"{kind}","id":"r1","max_rss_kb":{digits}}}'.encode()

    with pytest.raises(wire.WireError, match="a head that is none of ours"):
        decode(raw(head))


@pytest.mark.parametrize("size", [0, 2**40])
def test_a_memory_at_its_bounds_is_a_memory(size: int) -> None:
    """Both ends of the range are inside."""
    head = f'{{"type":"response","id":"r1","max_rss_kb":{size}}}'.encode()

    assert [(wire.ResponseFrame(id="r1", max_rss_kb=size), b"")] == decode(raw(head))


@pytest.mark.parametrize(
    "garbage", [raw(b"x"), b"\xff" * 8, raw(b"x") + wire.encode(wire.ResponseFrame(id="r2"))]
)
def test_what_was_good_comes_before_what_is_not(garbage: bytes) -> None:
    """An answer arrived with garbage behind it: it counts, and the next feed raises."""
    decoder = wire.Decoder()

    got = decoder.feed(wire.encode(wire.ResponseFrame(id="r1"), b"1") + garbage)

    assert [(wire.ResponseFrame(id="r1"), b"1")] == got
    assert isinstance(decoder.failed, wire.WireError)
    for more in (b"", wire.encode(wire.ReadyFrame())):
        with pytest.raises(wire.WireError) as caught:
            decoder.feed(more)
        assert caught.value is decoder.failed


def test_nothing_has_failed_while_all_is_good() -> None:
    """A decoder that waits for the rest of a frame has not failed, one that raised has."""
    decoder = wire.Decoder()
    decoder.feed(wire.encode(wire.ReadyFrame()) + b"\0")
    assert decoder.failed is None

    with pytest.raises(wire.WireError) as caught:
        decoder.feed(b"\xff" * 8)
    assert caught.value is decoder.failed


def test_an_error_shows_only_the_beginning_of_a_head() -> None:
    """A message for the operator is not 64 kB long."""
    with pytest.raises(wire.WireError) as caught:
        decode(raw(b"x" * 60_000))

    assert len(str(caught.value)) < 200
