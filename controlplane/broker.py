"""The broker, asked by a process that cannot wait: is it there, how many messages wait in it."""

from collections.abc import Iterable

from kombu.connection import Connection

TIMEOUT_S = 1
_OPTIONS = {
    "redis": {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S},
    "amqp": {"read_timeout": TIMEOUT_S, "write_timeout": TIMEOUT_S},
}


def link_to(broker_url: str) -> Connection:
    """A connection that waits a second for each answer at most, also of a broker that hangs."""
    transport = "amqp" if broker_url.startswith("amqp") else "redis"
    return Connection(  # type: ignore[no-untyped-call]
        broker_url, connect_timeout=TIMEOUT_S, transport_options=_OPTIONS[transport]
    )


def reach(broker: Connection) -> None:
    """Raises what the transport raises when the broker is not there."""
    broker.ensure_connection(max_retries=1, timeout=TIMEOUT_S)  # type: ignore[no-untyped-call]


def waiting(broker_url: str, queues: Iterable[str]) -> dict[str, int]:
    """Queue → messages that no worker has taken yet. Raises what the transport raises.

    A queue that does not exist is empty: Redis and Valkey know none without messages.
    """
    with link_to(broker_url) as broker:
        reach(broker)
        return {queue: _waiting(broker, queue) for queue in queues}


def _waiting(broker: Connection, queue: str) -> int:
    try:
        # A channel for each: a question about nothing closes RabbitMQ's.
        with broker.channel() as channel:  # type: ignore[no-untyped-call]
            return int(channel.queue_declare(queue, passive=True).message_count)
    except broker.channel_errors:
        return 0
