"""Front matter as publishers write it, and as attackers would."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.rules.cardformat import ToolCapability
from skills.domain.front_matter import read_front_matter, requested_tools
from skills.errors import SkillImportError


def skill_file(block: str) -> bytes:
    return f"---\n{block}\n---\n\nText.\n".encode()


def test_front_matter_keeps_text_as_it_was_written() -> None:
    block = (
        'name: "hello"\nversion: 26.10\ndescription: Says it\n'
        "released: 2026-11-20\nflag: yes\nother: [1.50, null]"
    )

    found = read_front_matter(skill_file(block))

    assert (found.name, found.version, found.description) == ("hello", "26.10", "Says it")
    assert found.fields["released"] == "2026-11-20"
    assert found.fields["flag"] == "yes"
    assert found.fields["other"] == ["1.50", "null"]


def test_version_may_stand_in_the_metadata() -> None:
    assert (
        read_front_matter(skill_file('name: a\nmetadata:\n  version: "3.2.0"')).version == "3.2.0"
    )


def test_windows_line_ends_and_byte_order_mark() -> None:
    raw = b"\xef\xbb\xbf---\r\nname: a\r\ndescription: b\r\n---\r\ntext"

    assert read_front_matter(raw).name == "a"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"name: a",
        b"---\nname: a\n",
        skill_file("description: no name"),
        skill_file("name: ''"),
        skill_file("name: [a]"),
        skill_file("name: " + "x" * 201),
        skill_file('name: "a\\u202eb"'),
        skill_file("- a\n- b"),
        skill_file("just text"),
        skill_file("name: a\nname: b"),
        skill_file("name: a\nmetadata: {x: 1, x: 2}"),
        skill_file("name: a\nx: &x [1]\ny: *x"),
        skill_file("name: a\n? [1, 2]\n: b"),
        skill_file("name: 'a"),
        skill_file("name: a\nx: " + "[" * 5000),
        skill_file("name: a\nx: " + "y" * 70_000),
        b"---\nname: \xff\n---\n",
        skill_file("name: !!python/object/apply:os.system [id]"),
    ],
    ids=range(19),
)
def test_front_matter_that_is_refused(raw: bytes) -> None:
    with pytest.raises(SkillImportError):
        read_front_matter(raw)


@settings(max_examples=200, deadline=None)
@given(block=st.text(max_size=200))
def test_any_text_is_read_or_refused(block: str) -> None:
    try:
        found = read_front_matter(skill_file(block))
    except SkillImportError:
        return
    assert found.name


@pytest.mark.parametrize(
    ("fields", "tools"),
    [
        ({}, []),
        (
            {"allowed-tools": "Read Bash"},
            [ToolCapability(name="Read"), ToolCapability(name="Bash")],
        ),
        (
            {"allowed-tools": "Read,Write, Edit"},
            [ToolCapability(name=n) for n in ("Read", "Write", "Edit")],
        ),
        (
            {"allowed-tools": "Bash(git:*) Bash(docker ps *) Read"},
            [
                ToolCapability(name="Bash", args={"command": ["git:*", "docker ps *"]}),
                ToolCapability(name="Read"),
            ],
        ),
        (
            {"tools": ["Read", "Bash(ls)"]},
            [ToolCapability(name="Read"), ToolCapability(name="Bash", args={"command": ["ls"]})],
        ),
    ],
)
def test_requested_tools(fields: dict[str, object], tools: list[ToolCapability]) -> None:
    assert requested_tools(fields) == tools
