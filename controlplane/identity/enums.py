"""Choices of this app's columns. What also stands on the wire is spelled as there."""

from django.db import models

from enforcement.rules.policy import AgentState


class Role(models.TextChoices):
    """What a person may do in an organization; the table is in `access.py`."""

    OWNER = "owner"
    ADMIN = "admin"
    VIEWER = "viewer"


class TokenKind(models.TextChoices):
    API = "api"
    SIDECAR = "sidecar"


class Scope(models.TextChoices):
    """What a caller may do. Every endpoint names one."""

    READ = "read", "read everything of the organization"
    AGENTS_WRITE = "agents:write", "create and change teams, projects, agents and their keys"
    KILL = "kill", "throttle, pause, kill and resume agents"
    BUDGETS_WRITE = "budgets:write", "create and change budgets"
    PRICES_WRITE = "prices:write", "set rates of models and nodes"
    CARDS_WRITE = "cards:write", "import skills, sign and grant cards"
    NODES_WRITE = "nodes:write", "change serving nodes and sidecars"
    USAGE_WRITE = "usage:write", "report usage of calls that no sidecar saw"
    ADMIN = "admin", "manage people, tokens and the organization"
    OWNER = "owner", "make and unmake owners"


class State(models.TextChoices):
    """The state of an agent, as the wire spells it."""

    ACTIVE = AgentState.ACTIVE.value
    THROTTLED = AgentState.THROTTLED.value
    PAUSED = AgentState.PAUSED.value
    KILLED = AgentState.KILLED.value
