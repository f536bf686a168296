"""A maintainer's key, and what is signed with it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class Signer:
    """gpg with one key of its own. `public`: where the key is, as text, for those who check."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.public = home / "acme.asc"
        self._gpg("--quick-generate-key", "Acme <acme@acme.example>", "rsa2048", "sign", "never")
        self.public.write_bytes(self._gpg("--armor", "--export"))

    def clearsign(self, file: Path, signed: Path) -> None:
        signed.write_bytes(self._gpg("--clearsign", "--output", "-", str(file)))

    def detach(self, file: Path) -> None:
        """Beside it, as NAME.asc."""
        file.with_name(f"{file.name}.asc").write_bytes(
            self._gpg("--armor", "--detach-sign", "--output", "-", str(file))
        )

    def _gpg(self, *arguments: str) -> bytes:
        command = ["gpg", "--batch", "--quiet", "--homedir", str(self._home), "--passphrase", "", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], timeout=60, check=False)


@pytest.fixture(scope="session")
def signer() -> Iterator[Signer]:
    # The agent's socket wants a short path.
    with tempfile.TemporaryDirectory(prefix="wp") as folder:
        one = Signer(Path(folder))
        yield one
        one.close()
