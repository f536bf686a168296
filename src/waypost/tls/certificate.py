"""A certificate chain and its key, read and checked: whether they belong together, for which names, and how long."""

from __future__ import annotations

import ipaddress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from msgspec import Struct


class CertificateError(Exception):
    """The operator's: these files cannot be presented to anybody. `file` is the one that is wrong."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = file
        self.why = why


class Certificate(Struct, frozen=True):
    """What a chain says of itself. Times are seconds since 1970.

    names        DNS names in lower case, `*.acme.example` among them, and IP addresses
    issuer       as people know it
    fingerprint  of chain and key together: another one means that something was replaced
    """

    names: tuple[str, ...]
    issuer: str
    not_before: float
    not_after: float
    fingerprint: str

    def covers(self, host: str) -> bool:
        """RFC 9525 section 6.3: a wildcard is a whole first label, and stands for one."""
        wild = f"*.{host.partition('.')[2]}"
        return host in self.names or ("." in host and wild in self.names)


def read(chain: Path, key: Path) -> Certificate:
    """Raises CertificateError for what can be presented to nobody. Whether it has expired is the caller's to judge."""
    chain_pem, key_pem = _bytes(chain), _bytes(key)
    try:
        certificates = x509.load_pem_x509_certificates(chain_pem)
    except ValueError:
        raise CertificateError(chain, "no certificates in PEM, the server's own first") from None
    try:
        private = load_pem_private_key(key_pem, None)
    except TypeError:
        raise CertificateError(key, "the key is encrypted; it has to be readable without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(key, "no private key in PEM") from None
    own = certificates[0]
    if _spki(private.public_key()) != _spki(own.public_key()):
        raise CertificateError(key, f"not the key of the first certificate in {chain}")
    for one, issuer in pairwise(certificates):
        try:
            one.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            why = "the chain is out of order: each certificate must be issued by the one after it"
            raise CertificateError(chain, why) from None
    return Certificate(
        _names(own),
        _issuer(own),
        own.not_valid_before_utc.timestamp(),
        own.not_valid_after_utc.timestamp(),
        sha256(chain_pem + b"\0" + key_pem).hexdigest(),
    )


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateError(file, f"cannot be read: {error.strerror}") from None


def _spki(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()  # RFC 9525 section 2: a common name is no name of a server
    names = [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return (*names, *(_shown(address) for address in addresses))


def _shown(address: object) -> str:
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)


def _issuer(certificate: x509.Certificate) -> str:
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in certificate.issuer.get_attributes_for_oid(kind):
            return str(attribute.value)
    return certificate.issuer.rfc4514_string()
