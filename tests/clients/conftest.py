"""Where clients run, the daemons of those that have one, and those that had to be fetched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from tests.clients.daemons import containerd, docker_host, folder
from tests.clients.programs import crane, helm, oras

__all__ = ["containerd", "crane", "docker_host", "folder", "helm", "home", "oras"]


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    """An environment in which clients find nobody's credentials and settings. podman wants a short path."""
    with tempfile.TemporaryDirectory(prefix="wp") as folder:
        yield {"PATH": os.environ["PATH"], "HOME": folder, "XDG_RUNTIME_DIR": folder, "TMPDIR": folder}
