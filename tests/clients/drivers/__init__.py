"""Programs that drive one client each: a line of JSON in (`Ask`), a line out (`Seen`).

Their own words go to standard error. They use the client's blocking interface, as scripts do.
"""

import dataclasses
import json
import sys
from collections.abc import Callable

from tests.clients.client import TOOL, WORDS, Ask, Seen

MESSAGES = [{"role": "user", "content": WORDS}]
PARAMETERS = {"type": "object", "properties": {"query": {"type": "string"}}}
FUNCTION = {"name": TOOL, "description": "Search the web.", "parameters": PARAMETERS}


def serve(call: Callable[[Ask], Seen], *errors: type[Exception]) -> None:
    """Answer every line until there are no more. `errors`: the client's own."""
    answers, sys.stdout = sys.stdout, sys.stderr  # some packages print
    for line in sys.stdin:
        ask = Ask(**json.loads(line))
        try:
            seen = call(ask)
        except errors as error:
            seen = Seen(
                error=type(error).__name__,
                status=getattr(error, "status_code", None),
                message=str(error),
            )
        answers.write(json.dumps(dataclasses.asdict(seen)) + "\n")
        answers.flush()
