"""ClientHellos: whatever the pieces and records, the same answer; whatever else comes, an error and nothing worse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.core.client_hello import MAX_BYTES, ClientHello, HelloError, NotTlsError, read_hello
from tests.support.hellos import extension, message, names, protocols, real_hello, records, vector

REAL = real_hello("A.Example.", ["h2", "http/1.1"])
LARGE = message(names(b"a.example") + extension(51, bytes(20_000)) + protocols(b"h2"))
"""As with several post-quantum key shares: more than fits into one record."""
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


def test_what_a_real_client_asks_for() -> None:
    """Python's own hello: the name in lower case and without its dot, protocols in its order, versions."""
    assert read_hello(REAL) == ClientHello("a.example", ("h2", "http/1.1"), (0x0304, 0x0303))


def test_one_who_asks_for_nothing() -> None:
    """Without extensions there is neither name nor protocol, and the version is the message's own."""
    assert read_hello(real_hello()).sni == ""  # type: ignore[union-attr]
    assert read_hello(records(message(None))) == ClientHello(versions=(0x0303,))
    assert read_hello(records(message(b""))) == ClientHello(versions=(0x0303,))


@pytest.mark.parametrize(
    "data",
    [REAL, records(LARGE), records(message(names(b"b.example")), 1, 2, 3)],
    ids=["real", "large", "slices"],
)
def test_every_split(data: bytes) -> None:
    """Until it is complete it says how much is needed: more than there is, never more than there will be."""
    whole = read_hello(data)
    assert isinstance(whole, ClientHello)
    for size in range(len(data)):
        needed = read_hello(data[:size])
        assert isinstance(needed, int)
        assert size < needed <= len(data)
    assert read_hello(data + b"\x17\x03\x03\x00\x01x") == whole  # early data is nobody's business here


def test_what_is_needed_is_asked_for_in_few_steps() -> None:
    """Whoever waits for just what is needed looks at most a few times, also at one in records of a byte each."""
    data = records(LARGE, *[1] * 1000)
    steps, size = 0, 0
    while isinstance(needed := read_hello(data[:size]), int):
        size, steps = needed, steps + 1
    assert steps < 60


@given(
    st.lists(LABEL, min_size=1, max_size=5).map(".".join),
    st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    st.integers(0, 20_000),
    st.lists(st.integers(1, 300), max_size=30),
)
def test_names_and_protocols_survive_any_fragmentation(
    name: str, words: list[bytes], padding: int, sizes: list[int]
) -> None:
    """What was put in comes out."""
    extensions = names(name.upper().encode()) + extension(21, bytes(padding))
    if words:
        extensions += protocols(*words)
    found = read_hello(records(message(extensions), *sizes))
    assert isinstance(found, ClientHello)
    assert found.sni == name
    assert found.alpn == tuple(word.decode("latin-1") for word in words)


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x",
        b"\x00\x00\x00\x08",
        b"\x16G",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01",
    ],
)
def test_what_is_not_tls_is_known_by_its_first_bytes(data: bytes) -> None:
    """A word of its own, as soon as it can be known."""
    with pytest.raises(NotTlsError, match="is not TLS"):
        read_hello(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x16\x03\x01\x00\x00", "a record has 0 bytes"),
        (b"\x16\x03\x01\x40\x01", "a record has 16385 bytes"),
        (b"\x16\x03\x01\x00\x05\x02", "has type 2, and is no ClientHello"),
        (records(message(b""), 8)[:13] + b"\x17", "a record of type 23 comes in the middle"),
        (records(message(b""), 8)[:13] + b"\x16\x02", "has version 2"),
        (records(b"\x01" + (MAX_BYTES - 3).to_bytes(3)), f"has {MAX_BYTES + 1} bytes or more"),
        (records(message(b"\0\0\0\x05")), "reaches beyond"),
        (records(message(b"", behind=b"x")), "bytes behind its extensions"),
        (records(message(names(b"a") * 2)), "extension 0 is there twice"),
        (records(message(names(b"a", b"b"))), "two server names"),
        (records(message(names(b""))), "is no host name"),
        (records(message(names(b"a..b"))), "is no host name"),
        (records(message(names(b"a" * 64))), "is no host name"),
        (records(message(names(b".".join([b"a" * 50] * 6)))), "is no host name"),
        (records(message(names(b"\xc3\xa4.example"))), "is no host name"),
        (records(message(names(b"a.example\n"))), "is no host name"),
        (records(message(names(b"*.example"))), "is no host name"),
        (records(message(extension(0, b"\0\0"))), "not the list"),
        (records(message(extension(0, vector(b"\0\0\x01a", 2) + b"x"))), "not the list"),
        (records(message(protocols())), "not the list"),
        (records(message(protocols(b""))), "is empty"),
        (records(message(extension(43, vector(b"\x03", 1)))), "reaches beyond"),
    ],
)
def test_what_is_no_valid_hello(data: bytes, text: str) -> None:
    """Each fault has its text, and is not taken for something else than TLS."""
    with pytest.raises(HelloError, match=text) as error:
        read_hello(data)
    assert not isinstance(error.value, NotTlsError)


def test_a_list_of_names_with_other_kinds() -> None:
    """Names of an unknown kind are passed over, as RFC 6066 leaves room for them."""
    listed = b"\x07" + vector(b"whatever", 2) + b"\0" + vector(b"a.example", 2)
    found = read_hello(records(message(extension(0, vector(listed, 2)))))
    assert isinstance(found, ClientHello)
    assert found.sni == "a.example"


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Nothing but an answer or our error comes of anything."""
    _outcome(data)
    _outcome(b"\x16\x03\x01" + data)
    _outcome(records(b"\x01" + vector(data, 3)))
    _outcome(records(message(data)))


@given(
    st.sampled_from([REAL, records(message(names(b"a.b") + protocols(b"h2", b"x")), 9, 9)]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 600),
)
def test_mutated_hellos(data: bytes, changes: list[tuple[int, int]], size: int) -> None:
    """Neither does it of a real one with some bytes changed and its end cut off."""
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    _outcome(bytes(mutated))
    _outcome(bytes(mutated[:size]))


def _outcome(data: bytes) -> None:
    try:
        found = read_hello(data)
    except HelloError:
        return
    if isinstance(found, int):
        assert len(data) < found <= MAX_BYTES
    else:
        assert found.sni == found.sni.lower()
