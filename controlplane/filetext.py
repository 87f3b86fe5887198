"""The text of a file that somebody gave us, whatever it really is. Pure."""

_PACKED = (b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PAR1")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_MARK = b"\xef\xbb\xbf"


def text_of(content: bytes) -> str:
    """UTF-8 text, without the mark that spreadsheets write before it.

    Raises:
        ValueError: what it is instead, and what to do; a file by its first bytes, as the user would
            otherwise read only that some column or bracket is missing.
    """
    if content.startswith(_PACKED):
        raise ValueError("this is a packed file (Excel, ZIP, gzip …): unpack it, or save it as CSV")
    if content.startswith(_UTF_16):
        raise ValueError("the text is in UTF-16: save it as UTF-8")
    if content.removeprefix(_MARK).lstrip().startswith(b"<"):
        raise ValueError("this is a web page or XML: perhaps a sign-in page was saved instead")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8 from byte {error.start} on") from None
    if "\0" in text:
        raise ValueError("this is no text: it has null characters")
    return text
