"""Files of targets."""

from typing import Any

import pytest

from enforcement.rules.targetfile import Target, TargetFileError, targets_of


def test_targets_are_named_by_themselves_or_by_a_label() -> None:
    document = [
        {"targets": ["gpu-a:8000", "[fd00::7]:8000"], "labels": {"rack": "7", "__param_x": "y"}},
        {
            "targets": ["10.0.0.9:443"],
            "labels": {"node": "edge", "__scheme__": "https", "__metrics_path__": "/m"},
        },
    ]
    assert targets_of(document) == [
        Target("gpu-a:8000", "http://gpu-a:8000", "/metrics", {"rack": "7"}),
        Target("[fd00::7]:8000", "http://[fd00::7]:8000", "/metrics", {"rack": "7"}),
        Target("edge", "https://10.0.0.9:443", "/m", {}),
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "no list of groups"),
        ({}, "no list of groups"),
        ([], "names no target"),
        ([{"targets": []}], "names no target"),
        (["gpu:1"], "group 0: it has `targets`"),
        ([{"targets": ["a:1"], "label": {}}], "group 0: it has `targets`"),
        ([{"targets": "a:1"}], "a list of host:port"),
        ([{"targets": [1]}], "a list of host:port"),
        ([{"targets": ["a:1"], "labels": {"x": 1}}], "`labels` are words"),
        ([{"targets": ["a:1"]}, {"targets": ["a:1"]}], "group 1: 'a:1' is named twice"),
        ([{"targets": ["a:1", "b:1"], "labels": {"node": "n"}}], "the node of one target"),
        ([{"targets": ["http://a:1/"]}], "is no host:port"),
        ([{"targets": ["u@a:1"]}], "is no host:port"),
        ([{"targets": ["a"]}], "is no host:port"),
        ([{"targets": ["a:1"], "labels": {"__scheme__": "file"}}], "http or https"),
        ([{"targets": ["a:1"], "labels": {"__metrics_path__": "m"}}], "begins with a slash"),
        ([{"targets": ["a:1"], "labels": {"node": "n" * 101}}], "1 to 100 printable"),
        ([{"targets": [f"a:{n}" for n in range(5_001)]}], "more than 5000 targets"),
    ],
    ids=str,
)
def test_a_file_that_says_something_else_is_refused_whole(document: Any, words: str) -> None:
    with pytest.raises(TargetFileError, match=words):
        targets_of(document)
