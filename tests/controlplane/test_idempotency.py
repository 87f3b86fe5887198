"""The same key twice at the same time: one change, one answer."""

import threading

import pytest
from django.db import connection

from controlplane.identity.models import Agent, IdempotentAnswer
from tests.controlplane.world import Api, World, make_world

THREADS = 4


@pytest.mark.django_db(transaction=True)
def test_requests_that_race_under_one_key_make_one_agent() -> None:
    secret = make_world().secrets["owner"]
    barrier, answers = threading.Barrier(THREADS), []

    def create() -> None:
        barrier.wait()
        try:
            body = {"slug": "x", "name": "X"}
            answers.append(Api(secret).call("POST", "agents", body, Idempotency_Key="k"))
        finally:
            connection.close()

    threads = [threading.Thread(target=create) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [201] * THREADS
    assert [answer.json() for answer in answers] == [answers[0].json()] * THREADS
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
    assert sorted(replayed, key=str) == [None, *["true"] * (THREADS - 1)]
    assert Agent.objects.count() == 1


@pytest.mark.parametrize("key", ["", " ", "é", "x" * 256, "a b"])
def test_a_key_of_another_form_is_refused(world: World, key: str) -> None:
    body = {"slug": "x", "name": "X"}
    answer = world.clients["owner"].call("POST", "agents", body, Idempotency_Key=key)
    assert answer.json()["errors"] == {"Idempotency-Key": ["1 to 255 visible ASCII characters"]}
    assert Agent.objects.count() == 0


def test_no_stored_answer_has_a_secret_in_it(world: World) -> None:
    owner = world.clients["owner"]
    agent = world.agent()
    secrets = [
        owner.call("POST", path, body, Idempotency_Key=path).json()["secret"]
        for path, body in (
            (f"agents/{agent.pk}/keys", {}),
            ("api-tokens", {"name": "x", "scopes": ["read"]}),
        )
    ]
    stored = str(list(IdempotentAnswer.objects.values()))
    assert [secret for secret in secrets if secret in stored or secret[-30:] in stored] == []
