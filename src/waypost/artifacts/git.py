"""Git repositories over smart HTTP: a clone or fetch begins with REPO/info/refs (gitprotocol-http, "Smart Clients").

git follows a redirect of that one question, and asks for all else where it led. So it is all that is seen here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from waypost.artifacts.kind import DeclarationError, Package
from waypost.artifacts.tree import OTHER, File, TreeRow, TreeSite, kind_of, tree_reach
from waypost.routing.decision import Decision, Refuse
from waypost.routing.request import Request

_REFS = "/info/refs"
_PUSH = Refuse(403, "DENIED", "This repository is read here. Push to where it is kept: git remote set-url --push.")


class GitRow(TreeRow, frozen=True, array_like=True, tag="git"):
    pass


def read(path: str) -> File:
    """`skates.git/info/refs` → the repository skates."""
    name = path.removesuffix(_REFS).removesuffix(".git")
    return File("binary-download", name) if path.endswith(_REFS) and name else OTHER


class GitSite(TreeSite):
    def decide(self, request: Request) -> Decision | None:
        if "git-receive-pack" in (_service(request), request.path.rpartition("/")[2]):
            return _PUSH
        return super().decide(request)

    def _file(self, request: Request) -> File:
        # Without a service it is a client that reads files one by one; git itself tries that second, elsewhere.
        return super()._file(request) if _service(request) == "git-upload-pack" else OTHER


def _service(request: Request) -> str:
    found = (pair.removeprefix("service=") for pair in (request.query or "").split("&") if pair.startswith("service="))
    return next(found, "")


_TREE = kind_of("git", GitRow, read, "https://git.acme.example", site=GitSite)


def declare(package: Package) -> Sequence[msgspec.Struct]:
    if package.proxy:
        raise DeclarationError("proxy", True, "no proxy: git asks with POST, and goes to the upstream for that")
    assert _TREE.declare is not None
    return _TREE.declare(package)


KIND = msgspec.structs.replace(_TREE, declare=declare, reach=tree_reach)
