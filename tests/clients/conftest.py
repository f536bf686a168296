"""Where clients run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    """An environment in which clients find nobody's credentials and settings. podman wants a short path."""
    with tempfile.TemporaryDirectory(prefix="wp") as folder:
        yield {"PATH": os.environ["PATH"], "HOME": folder, "XDG_RUNTIME_DIR": folder, "TMPDIR": folder}
