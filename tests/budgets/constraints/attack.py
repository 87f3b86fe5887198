"""Attack a row with SQL, past all Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction


@contextmanager
def refused_by(constraint: str) -> Iterator[None]:
    """What happens inside is refused by the constraint of that name, and leaves no trace."""
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        yield
    cause: Any = caught.value.__cause__
    assert cause.diag.constraint_name == constraint, caught.value


def sql(statement: str, *parameters: Any) -> int:
    """Run a statement; how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
