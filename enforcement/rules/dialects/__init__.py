"""The dialects that agents speak, by route."""

from enforcement.rules.dialects.anthropic import CountTokens, Messages
from enforcement.rules.dialects.base import SPOKEN, Dialect, Engine, Family
from enforcement.rules.dialects.llamacpp import Completion
from enforcement.rules.dialects.ollama import OllamaChat, OllamaEmbed, OllamaGenerate
from enforcement.rules.dialects.openai import Chat, Completions, Embeddings
from enforcement.rules.dialects.passed import Passed, passes
from enforcement.rules.dialects.responses import Responses
from enforcement.rules.dialects.translated import (
    ChatOverOpenAI,
    EmbedOverOpenAI,
    GenerateOverOpenAI,
)
from enforcement.rules.requests import Endpoint

CHAT = Chat()
DIALECTS: dict[Endpoint, Dialect] = {
    dialect.endpoint: dialect
    for dialect in (
        CHAT,
        Completions(),
        Embeddings(),
        Responses(),
        Messages(),
        CountTokens(),
        OllamaChat(),
        OllamaGenerate(),
        OllamaEmbed(),
        Completion(),
    )
}
# How a call reaches a node that does not speak its dialect, where that is possible.
TRANSLATIONS: dict[Endpoint, Dialect] = {
    dialect.endpoint: dialect
    for dialect in (ChatOverOpenAI(), GenerateOverOpenAI(), EmbedOverOpenAI())
}
BY_PATH: dict[bytes, Dialect] = {d.path.encode("ascii"): d for d in DIALECTS.values()}

__all__ = [
    "BY_PATH",
    "CHAT",
    "DIALECTS",
    "SPOKEN",
    "TRANSLATIONS",
    "Dialect",
    "Engine",
    "Family",
    "Passed",
    "passes",
]


def dialect_near(path: bytes) -> Dialect:
    """Whose words a refusal on this path uses: the route's own, or its neighbours'."""
    known = BY_PATH.get(path)
    if known is not None:
        return known
    if path.startswith(b"/api/"):
        return DIALECTS[Endpoint.OLLAMA_CHAT]
    return DIALECTS[Endpoint.MESSAGES] if path.startswith(b"/v1/messages") else CHAT
