"""Client programs that scripts/clients fetches. A test that wants one fails without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[2] / ".venv/clients/bin"


def client(name: str) -> str:
    """Where a client is. Only the operator may say that it is gone without; a test without it fails."""
    without = f"WAYPOST_NO_{name.upper()}"
    if os.environ.get(without) == "1":
        pytest.skip(f"{without}=1: NOT VERIFIED that {name} pulls through Waypost and is counted right")
    path = CLIENTS / name
    if not path.exists():
        pytest.fail(f"no {name}: `scripts/clients {name}` fetches it, or set {without}=1 to go without")
    return str(path)


@pytest.fixture(scope="session")
def oras() -> str:
    return client("oras")


@pytest.fixture(scope="session")
def helm() -> str:
    return client("helm")


@pytest.fixture(scope="session")
def crane() -> str:
    return client("crane")
