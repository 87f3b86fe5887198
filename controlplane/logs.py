"""Logs are JSON lines on stderr, through structlog; prompts and secrets never enter them."""

import logging.config
import re
from typing import Any

import structlog
from structlog.typing import EventDict

_ONE_TIME = re.compile(r"/sign-in/[^/\s\"']+")


def without_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Django logs requests with their paths, and a one-time link's secret stands in its path."""
    event.pop("request", None)
    for name, value in event.items():
        if isinstance(value, str) and "/sign-in/" in value:
            event[name] = _ONE_TIME.sub("/sign-in/…", value)
    return event


SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    without_secrets,
]


def logging_settings(*, debug: bool) -> None:
    """Send the standard library's and structlog's records through one JSON renderer."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.JSONRenderer(),
                    ],
                    "foreign_pre_chain": SHARED,
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": "DEBUG" if debug else "INFO"},
            "loggers": {
                "django.request": {"level": "ERROR"},  # the request log tells of the others
                "django.db.backends": {"level": "INFO"},
                "asyncio": {"level": "INFO"},
            },
        }
    )
