"""An export of `explore.py` in a process of its own, so that its peak of memory is its own.

Reads a JSON object `{"days", "output"}` from standard input, prints figures as JSON.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import django
from common import peak_mb

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from budgets.queries.focus import COLUMNS, Version, hours_of
from budgets.queries.focusfiles import Output, written
from controlplane.identity.models import Organization


def run(given: dict[str, Any]) -> dict[str, Any]:
    until = datetime.now(tz=UTC).date()
    rows = hours_of(
        Organization.objects.get(slug="seed"),
        until - timedelta(days=given["days"]),
        until,
        Version.FOCUS_1_4,
    )
    begun = time.process_time()
    pieces = written(COLUMNS[Version.FOCUS_1_4], rows, Output(given["output"]))
    size = sum(map(len, pieces))
    return {
        "mb": size / 1_000_000,
        "cpu_s": time.process_time() - begun,
        "peak_mb": peak_mb([os.getpid()]),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
