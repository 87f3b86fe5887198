"""The format of a skill card's statement: an in-toto statement, version 1 of our predicate.

Rules of this file:

1. Integers and strings only; money in nano-dollars, moments as `YYYY-MM-DDTHH:MM:SSZ`.
2. A field at its default is left out, so that a later field can be added without changing the
   signed bytes of today's cards. A reader refuses fields that it does not know.
3. Every list and string has a limit.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct, field

PREDICATE_TYPE: Final = "https://comptroller.dev/skill-card/v1"

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=2000)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
DigestReference = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Stamp = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
Count = Annotated[int, Meta(ge=0)]
Patterns = Annotated[list[Text], Meta(max_length=1000)]


class _Part(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the statement. Fields at their default are left out of the signed bytes."""


class Source(_Part, frozen=True):
    repo: Text = ""
    commit: Text = ""
    path: Text = ""


class SkillIdentity(_Part, frozen=True):
    name: Name
    publisher: Text = ""
    upstream_version: Text = ""
    manifest_sha256: Digest | None = None  # binds the files' names, which the root digest does not
    source: Source = Source()


class Upstream(_Part, frozen=True):
    """What the publisher's own signature was worth when the card was signed."""

    kind: Annotated[str, Meta(pattern=r"^(oms-x509|oms-key|sigstore|clawhub|a2a|none)\Z")] = "none"
    root_fpr: Text = ""
    leaf_subject: Text = ""
    leaf_serial: Text = ""
    state: Text = ""


class ToolCapability(_Part, frozen=True):
    """A tool by exact name or `prefix*`; `args` narrows single arguments to patterns."""

    name: Name
    args: dict[Name, Patterns] = field(default_factory=dict)


class NetCapability(_Part, frozen=True):
    host: Name
    port: Annotated[int, Meta(ge=1, le=65535)] = 443
    methods: list[Name] = field(default_factory=list)


class FileCapability(_Part, frozen=True):
    read: Patterns = field(default_factory=list)
    write: Patterns = field(default_factory=list)


class McpCapability(_Part, frozen=True):
    server: Name
    tool: Name
    def_sha256: Digest | None = None


class SubagentCapability(_Part, frozen=True):
    max_depth: Count = 0
    max_children: Count = 0


class Capabilities(_Part, frozen=True):
    tools: Annotated[list[ToolCapability], Meta(max_length=1000)] = field(default_factory=list)
    denied_tools: Annotated[list[Name], Meta(max_length=1000)] = field(default_factory=list)
    net: list[NetCapability] = field(default_factory=list)
    fs: FileCapability = FileCapability()
    env: list[Name] = field(default_factory=list)
    mcp: list[McpCapability] = field(default_factory=list)
    subagents: SubagentCapability = SubagentCapability()
    models: list[Name] = field(default_factory=list)


class Caps(_Part, frozen=True):
    """Ceilings; an absent one is not capped by the card. Money in nano-dollars."""

    tokens: Count | None = None
    usd_nanos: Count | None = None
    seconds: Count | None = None
    tool_calls: Count | None = None


class CardBudget(_Part, frozen=True):
    per_activation: Caps = Caps()
    per_day: Caps = Caps()


class Evidence(_Part, frozen=True):
    kind: Name
    scanner: Text = ""
    version: Text = ""
    ruleset_digest: Text = ""
    report_sha256: Text = ""
    verdict: Text = ""
    completeness: Text = ""


class Waiver(_Part, frozen=True):
    finding_fingerprint: Name
    reason: Text
    approver: Name
    expires: Stamp


class Approval(_Part, frozen=True):
    by: Name
    at: Stamp
    role: Text = ""
    method: Text = ""


class CardBody(_Part, frozen=True):
    """The predicate: everything that the signer authorises."""

    card_rev: Annotated[int, Meta(ge=1)]
    skill: SkillIdentity
    not_before: Stamp
    expires: Stamp
    supersedes: DigestReference | None = None
    upstream: Upstream = Upstream()
    capabilities: Capabilities = Capabilities()
    budget: CardBudget = CardBudget()
    evidence: list[Evidence] = field(default_factory=list)
    waivers: list[Waiver] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    policy_digest: DigestReference | None = None


class Sha256(_Part, frozen=True):
    sha256: Digest


class CardSubject(_Part, frozen=True):
    name: Name
    digest: Sha256


class Statement(_Part, frozen=True, rename={"type_": "_type", "predicate_type": "predicateType"}):
    type_: Text
    subject: Annotated[list[CardSubject], Meta(min_length=1, max_length=1)]
    predicate_type: Text
    predicate: CardBody
