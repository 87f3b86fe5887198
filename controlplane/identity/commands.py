"""What the management commands behind `comptroller` share: whose data, and how it is told."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from controlplane.cli.output import Exit, Format, Output
from controlplane.identity.models import Organization
from controlplane.identity.queries import find_organization


def add_organization(parser: ArgumentParser) -> None:
    """`--organization`, for `organization_of`."""
    parser.add_argument("--organization", default="", help="its slug, where there are several")


def add_format(parser: ArgumentParser) -> None:
    """`--format`, for `output_of`."""
    parser.add_argument("--format", default="auto", choices=[kind.value for kind in Format])


def organization_of(options: dict[str, Any]) -> Organization:
    """The organization that was named, or the only one.

    Raises:
        CommandError: there is none of that name, or several and none was named.
    """
    organization = find_organization(options["organization"])
    if organization is None:
        told = "no such organization; name one with --organization"
        raise CommandError(told, returncode=Exit.NOT_FOUND)
    return organization


def output_of(options: dict[str, Any]) -> Output:
    """Where the answer goes, in the format that was asked for."""
    return Output(Format(options["format"]))
