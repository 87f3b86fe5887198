"""Sending tasks by name, as the domain knows no broker."""

from collections.abc import Mapping

from celery import current_app
from kombu.exceptions import OperationalError

from controlplane.duties.errors import BrokerAwayError

ONCE_MORE = {"max_retries": 1, "interval_start": 0}  # the connection may be an old one


def send(task: str, arguments: Mapping[str, object]) -> None:
    """Raises BrokerAwayError: nothing was sent."""
    try:
        current_app.send_task(task, kwargs=dict(arguments), retry_policy=ONCE_MORE)
    except OperationalError as error:
        raise BrokerAwayError("the broker takes no message") from error
