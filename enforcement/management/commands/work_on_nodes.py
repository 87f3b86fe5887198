"""`manage.py work_on_nodes`, behind `comptroller nodes`."""

import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from controlplane.cli.output import Exit, Format, Output
from controlplane.identity.commands import add_format, add_organization, organization_of, output_of

COLUMNS = ("name", "engine", "state", "cost_per_hour", "accelerators", "read_at", "problem")
STATES = {"drain": "draining", "activate": "active", "remove": "gone"}
VERBS = ("list", "show", "add", "cost", "label", "patience", "discover", *STATES)


class Command(BaseCommand):
    help = "Serving nodes: list, show, enter, discover, price, label, drain, activate, remove."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=VERBS)
        parser.add_argument("wish", help="of which node, and what, as a JSON object")
        add_organization(parser)
        add_format(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        from controlplane.audit.domain import Actor
        from controlplane.identity.errors import NotFoundInOrganizationError
        from enforcement.errors import EnforcementError, NodeNameTakenError, NodeStateError

        organization = organization_of(options)
        who = {
            "organization_id": organization.id,
            "actor": Actor.system("command line"),
            "now": timezone.now(),
        }
        output = output_of(options)
        try:
            _do(options["verb"], json.loads(options["wish"]), who, output)
        except NotFoundInOrganizationError as error:
            raise CommandError("no such node", returncode=Exit.NOT_FOUND) from error
        except (NodeNameTakenError, NodeStateError) as error:
            raise CommandError(str(error), returncode=Exit.CONFLICT) from error
        except EnforcementError as error:
            raise CommandError(str(error), returncode=Exit.USAGE) from error


def _do(verb: str, wish: dict[str, Any], who: dict[str, Any], output: Output) -> None:
    if verb == "list":
        _list(wish, who, output)
    elif verb == "add":
        _add(wish, who, output)
    elif verb == "discover":
        _discover(wish, who, output)
    else:
        node = _find(wish.pop("node"), who["organization_id"])
        match verb:
            case "cost":
                _cost(node, wish, who, output)
            case "label":
                _label(node, wish, who)
            case "patience":
                _patience(node, wish, who)
            case "show":
                pass
            case _:
                _set(node, verb, wish, who)
        if verb != "cost":
            _show(node.pk, who, output)


def _find(name: str, organization_id: UUID) -> Any:
    """By its name, else by its id. Raises NotFoundInOrganizationError."""
    from controlplane.identity.domain import find
    from controlplane.identity.errors import NotFoundInOrganizationError
    from enforcement.models import ServingNode

    node = ServingNode.objects.filter(organization_id=organization_id, name=name).first()
    if node is not None:
        return node
    try:
        node_id = UUID(name)
    except ValueError as error:
        raise NotFoundInOrganizationError(name) from error
    return find(ServingNode, organization_id=organization_id, object_id=node_id)


def _list(wish: dict[str, Any], who: dict[str, Any], output: Output) -> None:
    from enforcement.domain.nodecosts import costs_of
    from enforcement.models import ServingNode

    nodes = ServingNode.objects.filter(organization_id=who["organization_id"])
    nodes = nodes.filter(labels__contains=_labels(wish["labels"])).order_by("name")
    shown = [node for node in nodes if wish["gone"] or node.state != "gone"]
    costs = costs_of([node.pk for node in shown])
    output.table(COLUMNS, [_row(node, costs.get(node.pk, []), who["now"]) for node in shown])
    if not shown:
        output.text("No node: a sidecar enters those behind it, `nodes add` enters others.")


def _row(node: Any, costs: list[Any], now: Any) -> list[Any]:
    from enforcement.domain.nodes import health_of
    from enforcement.rules.money import usd_text
    from enforcement.rules.nodecost import cost_at

    cost = cost_at(costs, now)
    stands = f"{cost.accelerator_count} x {cost.accelerator}" if cost and cost.accelerator else ""
    return [
        *(node.name, f"{node.engine} {node.engine_version}".strip(), health_of(node, now=now)),
        *(usd_text(cost.cost_per_hour_nanos) if cost else None, stands or None),
        node.last_scraped_at.isoformat() if node.last_scraped_at else None,
        node.last_error or node.warning or None,
    ]


def _show(node_id: UUID, who: dict[str, Any], output: Output) -> None:
    from enforcement.api.nodes import NodeCostSerializer, NodeSerializer
    from enforcement.domain.nodecosts import costs_of
    from enforcement.models import NodeCost, ServingNode
    from enforcement.rules.nodecost import cost_at

    node = ServingNode.objects.get(pk=node_id)
    facts = dict(NodeSerializer(node).data)
    cost = cost_at(costs_of([node.pk]).get(node.pk, []), who["now"])
    facts["cost"] = (
        None if cost is None else NodeCostSerializer(NodeCost.objects.get(pk=cost.order)).data
    )
    if output.format is not Format.JSON:
        facts = {name: _words(value) for name, value in facts.items()}
    output.result(facts)


def _words(value: Any) -> Any:
    """A list or an object in one cell."""
    if isinstance(value, dict):
        return " ".join(f"{name}={one}" for name, one in value.items() if one not in (None, ""))
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _add(wish: dict[str, Any], who: dict[str, Any], output: Output) -> None:
    from enforcement.api.nodes import NodeCreateSerializer
    from enforcement.domain.nodes import create_node

    wish["labels"] = _labels(wish["labels"])
    node = create_node(**_checked(NodeCreateSerializer, wish), **who)
    _show(node.pk, who, output)


def _discover(wish: dict[str, Any], who: dict[str, Any], output: Output) -> None:
    from enforcement.domain.discovery import discover
    from enforcement.domain.places import PlaceError, read_place

    place = wish["place"]
    try:
        found = discover(place=place, targets=read_place(place), **who)
    except PlaceError as error:
        raise CommandError(f"nothing was changed: {error}", returncode=Exit.USAGE) from error
    rows = [
        [name, outcome, None]
        for outcome in ("entered", "changed", "gone", "kept")
        for name in getattr(found, outcome)
    ]
    rows += [[name, "refused", why] for name, why in found.refused.items()]
    output.table(("name", "outcome", "why"), rows)


def _cost(node: Any, wish: dict[str, Any], who: dict[str, Any], output: Output) -> None:
    from enforcement.api.nodes import NodeCostCreateSerializer, NodeCostSerializer
    from enforcement.domain.nodecosts import record_cost

    cost = record_cost(node_id=node.pk, **_checked(NodeCostCreateSerializer, wish), **who)
    output.result(dict(NodeCostSerializer(cost).data))


def _label(node: Any, wish: dict[str, Any], who: dict[str, Any]) -> None:
    """`NAME=VALUE` sets, `NAME-` takes away."""
    from enforcement.domain.nodes import set_labels

    taken = {word[:-1] for word in wish["labels"] if word.endswith("-") and "=" not in word}
    given = _labels([word for word in wish["labels"] if word[:-1] not in taken or "=" in word])
    kept = {name: value for name, value in node.labels.items() if name not in taken}
    set_labels(node_id=node.pk, labels=kept | given, reason=wish["reason"], **who)


def _patience(node: Any, wish: dict[str, Any], who: dict[str, Any]) -> None:
    from enforcement.domain.nodes import set_patience

    set_patience(node_id=node.pk, **wish, **who)


def _set(node: Any, verb: str, wish: dict[str, Any], who: dict[str, Any]) -> None:
    from enforcement.domain.nodes import set_node_state
    from enforcement.enums import NodeState

    set_node_state(node_id=node.pk, state=NodeState(STATES[verb]), reason=wish["reason"], **who)


def _labels(words: list[str]) -> dict[str, str]:
    """Raises CommandError: not NAME=VALUE."""
    pairs = [word.partition("=") for word in words]
    wrong = [word for word, (_, sign, _) in zip(words, pairs, strict=True) if not sign]
    if wrong:
        raise CommandError(f"a label is NAME=VALUE, not {wrong[0]!r}", returncode=Exit.USAGE)
    return {name: value for name, _, value in pairs}


def _checked(kind: Any, wish: dict[str, Any]) -> dict[str, Any]:
    """What the API would take. Raises CommandError."""
    given = kind(data=wish)
    if not given.is_valid():
        told = "; ".join(f"{name}: {words[0]}" for name, words in given.errors.items())
        raise CommandError(told, returncode=Exit.USAGE)
    return dict(given.validated_data)
