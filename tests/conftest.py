"""What concerns the order of all tests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser comes last: its driver keeps an event loop running in the main thread."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/e2e/"))
