"""Certificates for servers that a test starts, and an authority that signs them."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


def certify(file: Path) -> ssl.SSLContext:
    """What a server at 127.0.0.1 presents, signed by itself.

    Whoever is to trust it is told of `file`, which holds the certificate and its key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _build("127.0.0.1", ["127.0.0.1"], key, "127.0.0.1", key, 1)
    file.write_bytes(certificate.public_bytes(PEM) + _bytes(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


class Authority:
    """Signs certificates; `file` holds its own, for those who trust it."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._own = _build(name, [], self._key, name, self._key, 30)
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._own.public_bytes(PEM))

    def issue(self, name: str, *hosts: str, days: float = 30, stem: str = "") -> tuple[Path, Path]:
        """(chain, key) for `hosts`, or for `name` alone. `days` below 0: it has expired by then."""
        stem = stem or name.replace("*", "wild")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _build(name, list(hosts) or [name], key, self._name, self._key, days)
        chain, secret = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        secret.write_bytes(_bytes(key))
        chain.write_bytes(certificate.public_bytes(PEM) + self._own.public_bytes(PEM))
        return chain, secret


def _bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _build(
    name: str,
    hosts: list[str],
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: float,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if hosts:
        names: list[x509.GeneralName] = [_general(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
