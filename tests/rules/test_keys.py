"""Keys: their form, their checksum, their hash."""

import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from enforcement.rules.keys import (
    ID_BYTES,
    SECRET_BYTES,
    KeyFault,
    KeyFormatError,
    ParsedKey,
    hash_matches,
    key_hash,
    make_key,
    parse_key,
)

ids = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
envs = st.text(string.ascii_lowercase, min_size=2, max_size=8)
KEY = make_key(env="live", id_bytes=bytes(range(9)), secret_bytes=bytes(range(32)))


def fault_of(text: str) -> KeyFault:
    with pytest.raises(KeyFormatError) as caught:
        parse_key(text)
    return caught.value.fault


def test_a_key_is_spelled_for_ever_as_it_is_now() -> None:
    assert KEY.text == ("cmp_live_0005McJmDgrvc_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf0KiIHz")
    assert (KEY.env, KEY.id) == ("live", "0005McJmDgrvc")


@given(env=envs, id_bytes=ids, secret_bytes=secrets)
def test_every_key_made_is_parsed_to_itself(env: str, id_bytes: bytes, secret_bytes: bytes) -> None:
    made = make_key(env=env, id_bytes=id_bytes, secret_bytes=secret_bytes)
    assert parse_key(made.text) == made
    assert made.text.startswith(f"cmp_{env}_{made.id}_")


@given(one=st.tuples(ids, secrets), other=st.tuples(ids, secrets))
def test_other_random_bytes_make_another_key(
    one: tuple[bytes, bytes], other: tuple[bytes, bytes]
) -> None:
    assume(one != other)
    keys = {make_key(env="live", id_bytes=i, secret_bytes=s).text for i, s in (one, other)}
    assert len(keys) == 2


@given(position=st.integers(9, len(KEY.text) - 1), letter=st.sampled_from(string.ascii_letters))
def test_one_wrong_character_is_told(position: int, letter: str) -> None:
    assume(KEY.text[position] != letter)
    mistyped = KEY.text[:position] + letter + KEY.text[position + 1 :]
    assert fault_of(mistyped) in (KeyFault.CHECKSUM, KeyFault.PARTS)


@given(length=st.integers(0, len(KEY.text) - 1))
def test_a_key_cut_off_anywhere_is_told(length: int) -> None:
    assert fault_of(KEY.text[:length]) in (KeyFault.LENGTH, KeyFault.PARTS, KeyFault.FOREIGN)


@given(text=st.text(max_size=200))
@example("")
@example("cmp_")
@example("cmp____")
@example("cmp_live_" + "é" * 13 + "_" + "0" * 49)
def test_any_other_text_is_refused_for_a_reason(text: str) -> None:
    assert fault_of(text) in set(KeyFault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x" * 129, KeyFault.TOO_LONG),
        ("sk-" + KEY.text, KeyFault.FOREIGN),
        (" " + KEY.text, KeyFault.FOREIGN),
        ("CMP" + KEY.text[3:], KeyFault.FOREIGN),
        (KEY.text.replace("live", "LIVE"), KeyFault.PARTS),
        (KEY.text.replace("_live", ""), KeyFault.PARTS),
        (KEY.text + "_", KeyFault.PARTS),
        (KEY.text[:-1], KeyFault.LENGTH),
        (KEY.text + "0", KeyFault.LENGTH),
        (KEY.text[:-1] + "-", KeyFault.ALPHABET),
        (KEY.text + "\n", KeyFault.ALPHABET),
        (KEY.text[:-1] + "٣", KeyFault.ALPHABET),
        (KEY.text.replace("live", "test"), KeyFault.CHECKSUM),
        (KEY.text[:-1] + "0", KeyFault.CHECKSUM),
    ],
)
def test_a_malformed_key_is_refused_by_its_fault(text: str, fault: KeyFault) -> None:
    assert fault_of(text) is fault


def test_an_error_never_repeats_the_key() -> None:
    with pytest.raises(KeyFormatError) as caught:
        parse_key(KEY.text[:-1] + "0")
    assert str(caught.value) == "mistyped: the checksum is wrong"


@pytest.mark.parametrize("sizes", [(8, 32), (10, 32), (9, 31), (9, 33)])
def test_too_little_or_too_much_chance_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="9 and 32 random bytes"):
        make_key(env="live", id_bytes=bytes(sizes[0]), secret_bytes=bytes(sizes[1]))


@pytest.mark.parametrize("env", ["", "l", "LIVE", "toolongenv", "li_e", "l1ve"])
def test_an_env_of_another_form_is_refused(env: str) -> None:
    with pytest.raises(KeyFormatError, match="not of the form"):
        make_key(env=env, id_bytes=bytes(9), secret_bytes=bytes(32))


def test_the_hash_is_keyed() -> None:
    digest = key_hash(KEY.text, pepper=b"pepper")
    assert digest == "787956e07788706ffcf8fb0c67635d9a1486a17839a3325d26392946b79ad0fe"
    assert hash_matches(KEY.text, digest, pepper=b"pepper")
    assert not hash_matches(KEY.text, digest, pepper=b"another")


@given(secret=secrets)
def test_only_the_key_itself_has_its_hash(secret: bytes) -> None:
    other: ParsedKey = make_key(env="live", id_bytes=bytes(range(9)), secret_bytes=secret)
    digest = key_hash(KEY.text, pepper=b"pepper")
    assert hash_matches(other.text, digest, pepper=b"pepper") == (other.text == KEY.text)
