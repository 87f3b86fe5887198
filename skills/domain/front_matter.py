"""Read the front matter of SKILL.md leniently: what publishers write, not what the format asks.

Every scalar stays the text that it was written as (`26.10` is not a number), aliases and keys
that stand twice are refused, and unknown keys are kept.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from enforcement.rules.cardformat import ToolCapability
from skills.errors import SkillImportError

_BLOCK = re.compile(rb"\A(?:\xef\xbb\xbf)?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_BLOCK_BYTES_MAX = 64 * 1024
_TOOL = re.compile(r"([^\s,()]+)(?:\(([^()]*)\))?")
_NAME_CHARACTERS_MAX = 200


@dataclass(frozen=True, kw_only=True)
class FrontMatter:
    name: str
    description: str = ""
    version: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


class _Loader(yaml.BaseLoader):
    """Scalars as text; no aliases (they multiply), no key twice (readers would disagree)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [getattr(key, "value", None) for key, _ in node.value]
        if any(not isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise yaml.YAMLError("a key stands twice, or is no text")
        return super().construct_mapping(node, deep=deep)


def read_front_matter(skill_file: bytes) -> FrontMatter:
    """The front matter of SKILL.md.

    Raises:
        SkillImportError: there is none, it is no YAML mapping, or it has no name.
    """
    found = _BLOCK.match(skill_file)
    if found is None or len(found[1]) > _BLOCK_BYTES_MAX:
        raise SkillImportError("SKILL.md has no front matter between two lines of `---`")
    try:
        fields = yaml.load(found[1].decode("utf-8"), Loader=_Loader)  # noqa: S506 -- text only
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SkillImportError(f"the front matter is not plain YAML: {_line(error)}") from None
    if not isinstance(fields, dict):
        raise SkillImportError("the front matter is not a YAML mapping")
    name = fields.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS_MAX:
        raise SkillImportError("the front matter has no name")
    if "\x00" in found[1].decode("utf-8") or not name.isprintable():
        raise SkillImportError("the front matter holds characters that cannot be seen")
    return FrontMatter(
        name=name,
        description=_text(fields.get("description"))[:4000],
        version=_version(fields)[:200],
        fields=fields,
    )


def requested_tools(fields: dict[str, Any]) -> list[ToolCapability]:
    """What `allowed-tools` asks for: a request that pre-fills a card, never a permission."""
    wanted = fields.get("allowed-tools", fields.get("tools", ""))
    text = " ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
    found: dict[str, list[str]] = {}
    for name, pattern in _TOOL.findall(text):
        patterns = found.setdefault(name[:200], [])
        if pattern and pattern not in patterns:
            patterns.append(pattern)
    return [
        ToolCapability(name=name, args={"command": patterns} if patterns else {})
        for name, patterns in found.items()
    ]


def _version(fields: dict[str, Any]) -> str:
    metadata = fields.get("metadata")
    inner = metadata.get("version") if isinstance(metadata, dict) else None
    return _text(fields.get("version")) or _text(inner)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200]
