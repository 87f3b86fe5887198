"""How many messages wait in each queue, asked from the broker itself."""

from collections.abc import Iterable

from kombu.connection import Connection

TIMEOUT_S = 1


def waiting(broker_url: str, queues: Iterable[str]) -> dict[str, int]:
    """Queue → messages that no worker has taken yet. Raises what the transport raises.

    A queue that does not exist is empty: Redis and Valkey know none without messages.
    """
    with Connection(  # type: ignore[no-untyped-call]
        broker_url, connect_timeout=TIMEOUT_S
    ) as broker:
        broker.ensure_connection(max_retries=1, timeout=TIMEOUT_S)
        return {queue: _waiting(broker, queue) for queue in queues}


def _waiting(broker: Connection, queue: str) -> int:
    try:
        # A channel for each: a question about nothing closes RabbitMQ's.
        with broker.channel() as channel:  # type: ignore[no-untyped-call]
            return int(channel.queue_declare(queue, passive=True).message_count)
    except broker.channel_errors:
        return 0
