"""Calls that no sidecar saw, as others tell of them: what is said becomes one usage event each.

Nothing here does I/O. `call.py` is what all sources come down to; `spans.py` and `genai.py` read
OpenTelemetry spans, `litellm.py` LiteLLM's logs, `webhook.py` JSON of any shape.
"""
