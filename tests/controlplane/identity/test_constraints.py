"""What the database refuses by itself, attacked with SQL that no domain function has seen."""

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from controlplane.identity import domain
from controlplane.identity.models import Agent
from tests.controlplane.world import NOW, UNKNOWN, World


def run(sql: str, values: tuple[Any, ...]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, values)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def attack(sql: str, *values: Any) -> str:
    """Run it, and name the constraint or trigger that refused it."""
    with pytest.raises(IntegrityError) as caught:
        run(sql, values)
    return str(caught.value.__cause__.diag.constraint_name)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sql", "refused_by"),
    [
        ("UPDATE identity_agent SET state = 'zombie'", "agent_state_known"),
        ("UPDATE identity_agent SET name = ''", "agent_named"),
        ("UPDATE identity_agent SET tokens_per_minute = 0", "agent_tokens_per_minute_positive"),
        (
            "UPDATE identity_agent SET priority = 10",
            "agent_priority_in_range",
        ),
        (
            "UPDATE identity_agent SET hand_back_tokens = 0",
            "agent_hand_back_tokens_positive",
        ),
        (
            "UPDATE identity_agent SET requests_per_minute = -1",
            "agent_requests_per_minute_positive",
        ),
        ("UPDATE identity_agent SET slug = 'taken-over'", "agent_identity_fixed"),
        ("DELETE FROM identity_agent", "agent_identity_fixed"),
        ("UPDATE identity_agentkey SET key_hash = repeat('0', 64)", "agent_key_fixed"),
        ("UPDATE identity_agentkey SET prefix = 'x'", "agent_key_fixed"),
        (
            "UPDATE identity_agentkey SET expires_at = created_at",
            "agent_key_expires_after_creation",
        ),
        ("UPDATE identity_apitoken SET scopes = '{owner}'", "api_token_fixed"),
        ("UPDATE identity_apitoken SET kind = 'api'", "api_token_fixed"),
        ("UPDATE identity_apitoken SET token_hash = repeat('0', 64)", "api_token_fixed"),
        ("UPDATE identity_membership SET role = 'god'", "membership_role_known"),
        ("UPDATE identity_membership SET role = 'viewer'", "membership_keeps_an_owner"),
        ("DELETE FROM identity_membership", "membership_keeps_an_owner"),
        (
            "UPDATE identity_organization SET policy_revision = policy_revision - 1",
            "organization_policy_revision_rises",
        ),
        ("UPDATE identity_organization SET slug = 'Not A Slug'", "organization_slug_form"),
        ("UPDATE identity_team SET slug = '-'", "team_slug_form"),
        ("UPDATE identity_project SET name = ''", "project_named"),
    ],
)
def test_the_database_refuses(world: World, sql: str, refused_by: str) -> None:
    world.project(team_id=world.team().pk)
    world.key(world.agent())
    assert attack(sql) == refused_by


def test_a_revoked_secret_stays_revoked(world: World) -> None:
    key = world.key(world.agent())
    domain.revoke_agent_key(key_id=key.pk, **world.who)
    token = domain.issue_api_token(name="x", scopes=["read"], **world.who).token
    domain.revoke_api_token(token_id=token.pk, **world.who)
    unrevoke = "UPDATE {} SET revoked_at = NULL WHERE revoked_at IS NOT NULL"
    assert attack(unrevoke.format("identity_agentkey")) == "agent_key_fixed"
    assert attack(unrevoke.format("identity_apitoken")) == "api_token_fixed"


def test_a_used_link_stays_used(world: World) -> None:
    secret = domain.make_sign_in_link(person_id=world.people["owner"].pk, now=NOW)
    prolong = "UPDATE identity_signinlink SET expires_at = expires_at + interval '1 year'"
    assert attack(prolong) == "sign_in_link_once"
    late = "UPDATE identity_signinlink SET used_at = expires_at"
    assert attack(late) == "sign_in_link_used_in_time"
    domain.use_sign_in_link(secret, now=NOW)
    assert attack("UPDATE identity_signinlink SET used_at = NULL") == "sign_in_link_once"


def test_slugs_are_taken_once(world: World) -> None:
    world.agent("first")
    second = world.agent("second")
    columns = "name, state, state_reason, state_changed_at, created_at, organization_id"
    copy = (
        f"INSERT INTO identity_agent (id, slug, {columns})"
        f" SELECT gen_random_uuid(), 'first', {columns} FROM identity_agent WHERE id = %s"
    )
    assert attack(copy, second.pk) == "agent_slug_unique"


def test_an_address_is_one_person_in_any_case(world: World) -> None:
    shout = "UPDATE identity_person SET email = upper(%s) WHERE email = %s"
    both = ("owner@acme.example", "viewer@acme.example")
    assert attack(shout, *both) == "person_email_unique_in_any_case"


def test_rows_point_into_their_own_organization_only(world: World, stranger: World) -> None:
    team, project, agent = stranger.team(), stranger.project(), stranger.agent()
    mine = world.agent()
    key, my_project = world.key(mine), world.project()
    assert {
        attack("UPDATE identity_agent SET team_id = %s WHERE id = %s", team.pk, mine.pk),
        attack("UPDATE identity_agent SET project_id = %s WHERE id = %s", project.pk, mine.pk),
        attack("UPDATE identity_project SET team_id = %s WHERE id = %s", team.pk, my_project.pk),
        attack("UPDATE identity_agentkey SET agent_id = %s WHERE id = %s", agent.pk, key.pk),
    } == {
        "agent_team_of_same_organization",
        "agent_project_of_same_organization",
        "project_team_of_same_organization",
        "agent_key_fixed",
    }
    new_key = (
        "INSERT INTO identity_agentkey (id, organization_id, agent_id, name, prefix, key_hash,"
        " created_at) VALUES (%s, %s, %s, '', 'x', repeat('0', 64), now())"
    )
    refused = attack(new_key, UNKNOWN, world.id, agent.pk)
    assert refused == "agent_key_agent_of_same_organization"


def test_a_sidecars_token_has_no_scopes(world: World) -> None:
    new = (
        "INSERT INTO identity_apitoken (id, organization_id, name, kind, prefix, token_hash,"
        " scopes, created_at) VALUES (%s, %s, 'x', 'sidecar', 'x', repeat('0', 64), '{read}',"
        " now())"
    )
    assert attack(new, UNKNOWN, world.id) == "api_token_of_sidecar_has_no_scopes"


def test_owners_can_be_exchanged_in_one_transaction(world: World) -> None:
    own, admin = world.people["owner"], world.people["admin"]
    with transaction.atomic(), connection.cursor() as on:
        change = "UPDATE identity_membership SET role = %s WHERE person_id = %s"
        on.execute(change, ["viewer", own.pk])
        on.execute(change, ["owner", admin.pk])
        on.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert Agent.objects.count() == 0
