"""The embedded broker is what Celery's transport expects."""

import redis


def test_the_broker_answers_on_its_socket(valkey_url: str) -> None:
    path = valkey_url.removeprefix("redis+socket://")

    with redis.Redis(unix_socket_path=path) as client:
        assert client.ping() is True
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
