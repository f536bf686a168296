"""Which certificate a handshake gets: the name that the client asks for decides (SNI, RFC 6066 section 3).

One context listens. It is made before the workers are forked, so that its ticket keys are theirs, too, and a session
that one worker began is resumed by another (RFC 8446 section 4.6.1). It has no certificate of its own.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from waypost.artifacts.snapshot import CertificateRow
from waypost.tls.certificate import Certificate, CertificateError, read

logger = logging.getLogger("waypost")

# RFC 9325 section 4.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def make_context() -> ssl.SSLContext:
    """TLS 1.2 and 1.3, HTTP/1.1 by ALPN (RFC 7301), and nothing that has been broken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


class Contexts:
    """The contexts of one worker, by host. `listening` is what it accepts connections with."""

    def __init__(self, listening: ssl.SSLContext, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self.listening = listening
        self._clock = clock
        self._held: dict[str, tuple[Certificate, ssl.SSLContext]] = {}
        self._default: str | None = None
        self.unknown = 0
        listening.sni_callback = self._choose

    def take(self, rows: Sequence[CertificateRow]) -> None:
        """Presents these from the next handshake on. One that cannot be used leaves the one before it in place."""
        held = {}
        for row in rows:
            kept = self._held.get(row.domain)
            fresh = kept if kept is not None and kept[0].fingerprint == row.fingerprint else self._load(row, kept)
            if fresh is not None:
                held[row.domain] = fresh
        self._held = held
        self._default = next(iter(held), None)

    def held(self) -> dict[str, Certificate]:
        """What is presented now, by domain."""
        return {domain: one for domain, (one, _) in self._held.items()}

    def _load(
        self, row: CertificateRow, kept: tuple[Certificate, ssl.SSLContext] | None
    ) -> tuple[Certificate, ssl.SSLContext] | None:
        chain, key = Path(row.certificate), Path(row.key)
        try:
            fresh = read(chain, key)
            if kept is not None and fresh.not_after <= self._clock() < kept[0].not_after:
                raise CertificateError(chain, "it has expired, and the one before it has not")
            context = make_context()
            context.load_cert_chain(chain, key)
        except (CertificateError, ssl.SSLError, OSError) as error:
            instead = "the one before it stays" if kept is not None else "nothing is presented there"
            logger.error("the certificate for %s is not taken, and %s: %s", row.domain, instead, error)
            return kept
        return fresh, context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Whoever names no host (an address has no name) gets the first certificate; an unknown name gets none."""
        found = self._find((name or self._default or "").lower().removesuffix("."))
        if found is None:
            self.unknown += 1
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        return None

    def _find(self, host: str) -> ssl.SSLContext | None:
        held = self._held.get(host) or self._held.get(f"*.{host.partition('.')[2]}")
        return None if held is None else held[1]
