"""Upstreams that the operator has declared: where they are really fetched from, and as whom."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from waypost.routing.decision import Basic


class AccountError(Exception):
    """The operator's: the password of an account cannot be had. The message says why, and never what it is."""


class Declared(Struct, frozen=True, kw_only=True):
    """A host that we may be sent to: a registry, a token service, a blob or file store.

    host      lower case, with :PORT where its URLs have one
    connect   a base URL without path. https://HOST/… is fetched from there instead, and private addresses are
              allowed for it. None: fetched from where its name leads, under the address guard.
    username  the operator's own account there; its password is the value of the environment variable
              `password_env`, or the first line of the file `password_file`
    """

    host: str
    connect: str | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: str | None = None

    def account(self) -> Basic | None:
        """The operator's account, its password read now: it may have been changed. Raises AccountError."""
        if self.username is None:
            return None
        password = _from_environment(self.password_env) if self.password_env else _from_file(self.password_file or "")
        return Basic(self.username, password)


def _from_environment(name: str) -> str:
    password = os.environ.get(name)
    if not password:
        raise AccountError(f"the environment has no {name}")
    return password


def _from_file(name: str) -> str:
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise AccountError(f"{name} is not UTF-8 text") from None
    except OSError as error:
        raise AccountError(f"{name} cannot be read: {error.strerror}") from None
    if not lines or not lines[0]:
        raise AccountError(f"{name} has no password in its first line")
    return lines[0]


def by_host(declared: Iterable[Declared]) -> dict[str, Declared]:
    """The mapping that `Client` and `Upstreams` take."""
    return {one.host: one for one in declared}
