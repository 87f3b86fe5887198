"""Trace context and baggage: what is understood, what is dropped, what is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.tracecontext import (
    MAX_BAGGAGE_BYTES,
    MAX_BAGGAGE_MEMBERS,
    NO_TRACE,
    Trace,
    TraceParent,
    baggage_header,
    clean_tracestate,
    parse_baggage,
    parse_traceparent,
    trace_of,
)

TRACE, SPAN = "a1" * 16, "b2" * 8
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


def test_a_traceparent_is_read_and_written() -> None:
    parent = parse_traceparent(PARENT)
    assert parent == TraceParent(TRACE, SPAN, 1)
    assert parent.sampled
    assert parent.header() == PARENT


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", f"00-{TRACE}-{SPAN}-03"),  # flags that we do not know
        (f"01-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),  # a later version
        (f"cc-{TRACE}-{SPAN}-01-what-comes", f"00-{TRACE}-{SPAN}-01"),
    ],
)
def test_a_traceparent_goes_on_as_version_00(said: str, written: str) -> None:
    parent = parse_traceparent(said.encode())
    assert parent is not None
    assert parent.header() == written.encode()


@pytest.mark.parametrize(
    "said",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_is_none(said: str) -> None:
    assert parse_traceparent(said.encode()) is None


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (b"congo=t61rcWkgMzE,rojo=00f067", b"congo=t61rcWkgMzE,rojo=00f067"),
        (b" a=1 ,,\tb=2 ", b"a=1,b=2"),
        (b"1tenant@vendor=x", b"1tenant@vendor=x"),
        (b"a=1,a=2", b""),
        (b"A=1", b""),
        (b"a", b""),
        (b"a=1=2", b""),
        (b",".join(b"k%d=v" % n for n in range(33)), b""),
        (b",".join(b"k%d=%b" % (n, b"v" * 200) for n in range(3)), b""),
    ],
)
def test_tracestate_is_written_anew_or_dropped(said: bytes, written: bytes) -> None:
    assert clean_tracestate(said) == written


def test_baggage_is_decoded_and_written_anew() -> None:
    members = parse_baggage(b"session.id = run%207 ; ttl=3;secret , user.id=a%C3%A9,session.id=b")
    assert [(m.key, m.text) for m in members] == [(b"session.id", "run 7"), (b"user.id", "aé")]
    assert baggage_header(members) == b"session.id=run%207;ttl=3;secret,user.id=a%C3%A9"


def test_our_own_baggage_ends_here() -> None:
    members = parse_baggage(b"comptroller.tag.task=x,session.id=s")
    assert baggage_header(members) == b"session.id=s"
    assert baggage_header(members[:1]) == b""


@pytest.mark.parametrize(
    "said",
    [b"", b"a", b"a=1,", b"a=1,,b=2", b'a="1"', b"a=1;=2", b"a b=1", b"a=\xe9", b"a=1;b=c d"],
)
def test_malformed_baggage_is_dropped_whole(said: bytes) -> None:
    assert parse_baggage(said) == []


def test_baggage_is_bounded() -> None:
    many = b",".join(b"k%d=v" % n for n in range(200))
    assert len(parse_baggage(many)) == MAX_BAGGAGE_MEMBERS
    assert parse_baggage(b"a=" + b"v" * MAX_BAGGAGE_BYTES) == []


def test_a_value_that_is_no_utf_8_says_nothing() -> None:
    assert [m.text for m in parse_baggage(b"a=%ff,b=%zz")] == ["", "%zz"]


def test_a_state_without_its_parent_is_dropped() -> None:
    assert trace_of({b"tracestate": b"a=1"}) is NO_TRACE
    assert trace_of({b"traceparent": b"bad", b"tracestate": b"a=1"}) is NO_TRACE
    assert NO_TRACE.lines() == b""


def test_what_goes_upstream() -> None:
    trace = trace_of({b"traceparent": PARENT, b"tracestate": b"a=1", b"baggage": b"b=2"})
    ours = TraceParent(TRACE, "cc" * 8)
    assert trace.lines() == b"traceparent: %b\r\ntracestate: a=1\r\nbaggage: b=2\r\n" % PARENT
    assert trace.lines(ours).startswith(b"traceparent: %b\r\n" % ours.header())
    assert trace.lines(abroad=True) == b"traceparent: %b\r\ntracestate: a=1\r\n" % PARENT
    assert Trace(baggage=trace.baggage).lines() == b"baggage: b=2\r\n"


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_no_header_can_add_a_line(parent: bytes, state: bytes, baggage: bytes) -> None:
    said = {b"traceparent": parent, b"tracestate": state, b"baggage": baggage}
    lines = trace_of(said).lines()
    names = [line.partition(b":")[0] for line in lines.split(b"\r\n") if line]
    assert names == [n for n in (b"traceparent", b"tracestate", b"baggage") if n in names]


@given(st.text("ab=;, %\t0", max_size=60))
def test_what_is_written_is_read_as_the_same(text: str) -> None:
    members = parse_baggage(text.encode())
    assert parse_baggage(baggage_header(members)) == members
