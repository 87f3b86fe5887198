"""Digests of a skill's content, and the paths that a statement may name."""

import pytest

from enforcement.rules.oms import (
    colliding_paths,
    manifest_digest,
    path_problem,
    root_digest,
)
from tests.skills.publisher import (
    FILES,
    hash_files,
)


def test_root_digest_ignores_signature_and_git_paths() -> None:
    digests = hash_files(FILES)
    more = digests | hash_files({"skill.oms.sig": b"x", ".git/config": b"x", ".gitignore": b""})

    assert root_digest(more) == root_digest(digests)


def test_manifest_digest_binds_names_and_root_digest_does_not() -> None:
    digests = hash_files(FILES)
    renamed = {path.replace("hello.sh", "hullo.sh"): value for path, value in digests.items()}

    assert root_digest(renamed) == root_digest(digests)
    assert manifest_digest(renamed) != manifest_digest(digests)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a//b",
        "a/../b",
        "./a",
        "a/.",
        "a\\b",
        "C:/a",
        "a:b",
        "a\nb",
        "a\u202eb",
        "e\u0301",
        "\ud800",
        "x" * 1025,
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    assert path_problem(path) is not None


@pytest.mark.parametrize("path", ["SKILL.md", ".hidden/a b.txt", "référence/é.md", "a/b:c"])
def test_paths_that_are_fine(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    ("paths", "clash"),
    [
        (["a", "A"], ("a", "A")),
        (["dir/a", "DIR/b"], ("dir", "DIR")),
        (["ﬁle", "file"], ("ﬁle", "file")),
        (["straße", "STRASSE"], ("straße", "STRASSE")),
        (["a/b", "a/c", "b/a"], None),
    ],
)
def test_collisions(paths: list[str], clash: tuple[str, str] | None) -> None:
    assert colliding_paths(paths) == clash
