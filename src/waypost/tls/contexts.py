"""Which certificate a handshake gets: the name that the client asks for decides (SNI, RFC 6066 section 3).

One context listens. It is made before the workers are forked, so that its ticket keys are theirs, too, and a session
that one worker began is resumed by another (RFC 8446 section 4.6.1). It has no certificate of its own.

A certificate is loaded when it is first asked for, or before, while there is room: most are, and are in hand whatever
becomes of their files. To load one takes about two milliseconds, in which the worker does nothing else.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from waypost.artifacts.snapshot import CertificateRow
from waypost.tls.certificate import Certificate, CertificateError, read

logger = logging.getLogger("waypost")

# RFC 9325 section 4.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# How many certificates a worker holds. What was asked for longest ago makes room, and is loaded again when asked for.
HELD = 1000
# How long, in seconds, after a failure a handshake does not try to load again.
PATIENCE = 10.0


def make_context() -> ssl.SSLContext:
    """TLS 1.2 and 1.3, HTTP/1.1 by ALPN (RFC 7301), and nothing that has been broken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


class Held(Struct, frozen=True):
    """A certificate in hand. `declared` is the fingerprint that the snapshot names, for which it was loaded."""

    declared: str
    certificate: Certificate
    context: ssl.SSLContext


class Contexts:
    """The contexts of one worker, by host. `listening` is what it accepts connections with."""

    def __init__(self, listening: ssl.SSLContext, clock: Callable[[], float] = time.time, most: int = HELD) -> None:
        """`clock`: seconds since 1970."""
        self.listening = listening
        self._clock = clock
        self._most = most
        self._rows: dict[str, CertificateRow] = {}
        self._prepared: dict[str, CertificateRow] | None = None  # the rows that `prepare` has gone through
        self._held: dict[str, Held] = {}  # what was asked for last is the last
        self._failed: dict[str, float] = {}  # domain → when it may be tried again
        self._default: str | None = None
        self.unknown = 0
        listening.sni_callback = self._choose

    def take(self, rows: Sequence[CertificateRow]) -> None:
        """Presents these from the next handshake on. One that cannot be used leaves the one before it in place."""
        self._rows = {row.domain: row for row in rows}
        self._held = {domain: one for domain, one in self._held.items() if domain in self._rows}
        self._failed = {}
        self._default = next(iter(self._rows), None)

    def prepare(self) -> Iterator[None]:
        """Loads what is not in hand, a certificate each step, as long as there is room."""
        rows = self._rows
        if self._prepared is rows:
            return
        for domain, row in rows.items():
            if self._rows is not rows:
                return  # others have been taken meanwhile
            held = self._held.get(domain)
            if held.declared != row.fingerprint if held else len(self._held) < self._most:
                self._current(row)
                yield
        self._prepared = rows

    def held(self) -> dict[str, Certificate]:
        """What is in hand now, by domain."""
        return {domain: one.certificate for domain, one in self._held.items()}

    def find(self, host: str) -> Held | None:
        """What is presented to those who ask for `host`, loaded if need be."""
        row = self._rows.get(host) or self._rows.get(f"*.{host.partition('.')[2]}")
        return None if row is None else self._current(row)

    def _current(self, row: CertificateRow) -> Held | None:
        held = self._held.pop(row.domain, None)
        if (held is None or held.declared != row.fingerprint) and self._failed.get(row.domain, 0.0) <= self._clock():
            held = self._load(row, held)
        if held is not None:
            self._held[row.domain] = held
            if len(self._held) > self._most:
                del self._held[next(iter(self._held))]
        return held

    def _load(self, row: CertificateRow, before: Held | None) -> Held | None:
        chain, key = Path(row.certificate), Path(row.key)
        try:
            fresh = read(chain, key)
            # The configuration was read earlier, and its files may be others by now.
            if not fresh.covers(row.domain):
                raise CertificateError(chain, f"it is not for {row.domain}")
            if before is not None and fresh.not_after <= self._clock() < before.certificate.not_after:
                raise CertificateError(chain, "it has expired, and the one before it has not")
            context = make_context()
            context.load_cert_chain(chain, key)
        except (CertificateError, OSError) as error:
            self._failed[row.domain] = self._clock() + PATIENCE
            instead = "the one before it stays" if before is not None else "nothing is presented there"
            logger.error("the certificate for %s is not taken, and %s: %s", row.domain, instead, error)
            return before
        return Held(row.fingerprint, fresh, context)

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Whoever names no host (an address is none) gets the first certificate; an unknown name gets none."""
        host = (name or self._default or "").lower().removesuffix(".")
        found = self.find(host)
        if found is None and self._default is not None and _is_address(host):
            found = self.find(self._default)
        if found is None:
            self.unknown += 1
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found.context
        return None


def _is_address(host: str) -> bool:
    """RFC 6066 section 3 permits no addresses as names, and some clients send them all the same."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
