"""What a file is, said to whoever gave the wrong one."""

import gzip

import pytest

from controlplane.filetext import text_of


def test_text_is_read_without_its_mark() -> None:
    assert text_of("\ufeffmodel,prix\né,1\n".encode()) == "model,prix\né,1\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\x00", "unpack it, or save it as CSV"),
        (gzip.compress(b"0" * 1_000_000), "unpack it, or save it as CSV"),
        ("model,input".encode("utf-16"), "in UTF-16: save it as UTF-8"),
        ("mod\xe8le,input".encode("latin-1"), "not UTF-8 from byte 3 on"),
        (b"\n <!doctype html><title>Sign in</title>", "a web page or XML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "a web page or XML"),
        (b"model,input\0", "it has null characters"),
    ],
)
def test_anything_else_is_named(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        text_of(content)
