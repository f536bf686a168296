"""Who logs in where, and with which accounts we do: what is wrong or worth knowing about it when it is declared."""

from __future__ import annotations

import os

import msgspec
from msgspec import Struct

from waypost.artifacts import container
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.snapshot import Policy
from waypost.settings import Problem, SettingsFile


class Logins:
    """The domains on which users log in: where, and what is wrong or worth knowing about it."""

    def __init__(self, file: SettingsFile, hosts: dict[str, list[Struct]]) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._registries: dict[str, str] = {}
        for index, domain in enumerate(file.settings.domain):
            if domain.login == "none":
                continue
            key = f"domain[{index}]"
            known = container.registries(hosts.get(domain.host, []))
            if not known:
                expected = "an image or a collection on this domain, whose registry can check a login"
                self.problems.append(file.problem(f"{key}.login", domain.login, expected))
                continue
            found = domain.login_upstream
            if found is None and len(known) == 1:
                self._registries[domain.host] = known[0]
                continue
            registry = container.registry_called(found) if found is not None else None
            if registry not in known:
                expected = f"the registry that checks logins which name no image: one of {', '.join(known)}"
                self.problems.append(file.problem(f"{key}.login_upstream", found, expected))
                continue
            self._registries[domain.host] = registry
            if len(known) > 1:
                self.warnings.append(
                    f"{domain.host}: clients keep one login for each domain, so whoever logs in here sends it to each "
                    f"of {', '.join(known)} whose image they pull; a domain for each registry keeps them apart"
                )

    def policy(self, host: str, policy: HostPolicy) -> HostPolicy:
        """`policy`, with its login."""
        registry = self._registries.get(host)
        login = "none" if registry is None else "pass-through"
        return msgspec.structs.replace(policy, login=login, login_upstream=registry)


def account_warnings(policy: Policy) -> list[str]:
    """About accounts that cannot be used as things are. Public images are served all the same."""
    warnings = []
    for row in policy.upstreams:
        if row.password_env is not None and not os.environ.get(row.password_env):
            warnings.append(f"upstream {row.host}: the environment has no {row.password_env}; it is asked as nobody")
        if row.password_file is not None and not os.access(row.password_file, os.R_OK):
            warnings.append(f"upstream {row.host}: {row.password_file} cannot be read; it is asked as nobody")
    return warnings
