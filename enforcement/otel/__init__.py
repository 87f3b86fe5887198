"""OpenTelemetry GenAI spans and metrics of the sidecar. Needs the extra `otel`."""
