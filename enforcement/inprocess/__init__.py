"""The sidecar's core inside a serving node, as ASGI middleware: no extra hop.

    python -m vllm.entrypoints.openai.api_server … --middleware enforcement.inprocess.Comptroller

Configured by environment variables: `settings`. Base install only, no Django.
"""

from enforcement.inprocess.middleware import Comptroller

__all__ = ["Comptroller"]
