"""The certificates that a file declares: whether they can be presented, and for which hosts."""

from __future__ import annotations

import time
from pathlib import Path

from waypost.artifacts.snapshot import CertificateRow
from waypost.settings import Problem, SettingsFile
from waypost.tls.certificate import Certificate, CertificateError, read

# How long before its end, in seconds, a certificate is worth a warning.
SOON = 14 * 86_400


class Certificates:
    """Of one configuration.

    rows   for the snapshot
    files  that were read: they are looked at again when one of them changes
    """

    def __init__(self, file: SettingsFile) -> None:
        self.rows: list[CertificateRow] = []
        self.files: list[Path] = []
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        for index, one in enumerate(file.settings.tls.certificates):
            chain, key = ((file.path.parent / name).resolve() for name in (one.certificate, one.key))
            self.files += [chain, key]
            at = f"tls.certificates[{index}]"
            try:
                found = read(chain, key)
            except CertificateError as error:
                wrong = "key" if error.file == key else "certificate"
                self.problems.append(file.problem(f"{at}.{wrong}", getattr(one, wrong), f"a usable file ({error.why})"))
                continue
            if not found.covers(one.domain):
                names = ", ".join(found.names) or "no name at all"
                expected = f"a certificate for {one.domain}; this one is for {names}"
                self.problems.append(file.problem(f"{at}.certificate", one.certificate, expected))
                continue
            self.rows.append(CertificateRow(one.domain, str(chain), str(key), found.fingerprint))
            self._judge(one.domain, found)
        self._domains = {row.domain for row in self.rows}

    def cover(self, host: str) -> bool:
        """Whether some certificate is presented to those who ask for this host."""
        return host in self._domains or f"*.{host.partition('.')[2]}" in self._domains

    def _judge(self, domain: str, found: Certificate) -> None:
        """One that has expired is presented all the same: who trusts nothing else may still see why."""
        left = found.not_after - time.time()
        day = time.strftime("%Y-%m-%d", time.gmtime(found.not_after))
        if left < 0:
            self.warnings.append(f"{domain}: its certificate expired on {day}; clients will refuse it")
        elif left < SOON:
            self.warnings.append(f"{domain}: its certificate expires on {day}")
