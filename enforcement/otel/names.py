"""Every name that leaves by OpenTelemetry. All GenAI names are still of the status "development".

Sources: OpenTelemetry semantic conventions for generative AI, registry and spans of
`semantic-conventions-genai` v0.1.0; the two metrics as in `semantic-conventions` v1.37 (v0.1.0
counts the same under `gen_ai.client.inference.*`, which few backends read yet).
"""

SCOPE = "comptroller.sidecar"
SERVICE = "comptroller-sidecar"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT_ID = "gen_ai.agent.id"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK_S = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 -- the kind of a model's token
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"

VERDICT = "comptroller.verdict"  # allow, clamp, cut, kill, refuse
OUTCOME = "comptroller.outcome"
REASON = "comptroller.reason"  # why it was refused
STOPPED_BY = "comptroller.stopped_by"  # the budget, order or reason that cut or clamped it
BUDGET_ID = "comptroller.budget.id"
BUDGET_NAME = "comptroller.budget.name"
CHARGE_NANOS = "comptroller.charge_nanos"  # nano-dollars
PRICE_VERSION = "comptroller.price_version"
REQUEST_ID = "comptroller.request_id"
NODE = "comptroller.node"
USER = "user.id"
TAG = "comptroller.tag."
TOOL_CALLS = "comptroller.tool_calls"
GPU_MS = "comptroller.gpu_ms"
ESTIMATED = "comptroller.estimated"
PRESUMED = "comptroller.presumed"

TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 -- as above
OPERATION_DURATION = "gen_ai.client.operation.duration"
TOKEN_BUCKETS = [float(4**power) for power in range(14)]  # 1 … 67,108,864, as the conventions say
DURATION_BUCKETS_S = [0.01 * 2**power for power in range(14)]  # 0.01 … 81.92

ATTEMPT = "comptroller.attempt"

CHAT, TEXT, EMBEDDINGS = "chat", "text_completion", "embeddings"
_OPERATIONS = {
    "": CHAT,
    "chat/completions": CHAT,
    "responses": CHAT,
    "messages": CHAT,
    "api/chat": CHAT,
    "completions": TEXT,
    "completion": TEXT,
    "api/generate": TEXT,
    "embeddings": EMBEDDINGS,
    "api/embed": EMBEDDINGS,
}


def operation_of(endpoint: str) -> str:
    """The operation of a route, by the endpoint in usage events; its own name for any other."""
    return _OPERATIONS.get(endpoint, endpoint)
