"""An authority that vouches for hosts whose connections are opened. It lives in memory, as long as the proxy.

Programs in sandboxes trust it, nobody else does. Promised: its key and those of its certificates never touch a disk.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
from collections import OrderedDict

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = dt.timedelta(hours=24)
# A sandbox's clock may be some minutes off from another machine's that made a file.
_BEFORE = dt.timedelta(minutes=10)
#: So many hosts' certificates are kept.
_MOST_HOSTS = 512
_YEARS = dt.timedelta(days=365)


class Authority:
    """Use `context` for a connection to be opened, `certificate` to have it trusted."""

    def __init__(self) -> None:
        self._key, self._leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Fumehood egress {os.urandom(4).hex()}")])
        public, now = self._key.public_key(), dt.datetime.now(dt.UTC)
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        built = (
            x509.CertificateBuilder().subject_name(self._name).issuer_name(self._name).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - _BEFORE).not_valid_after(now + _YEARS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip
        #: What is to be trusted, as PEM.
        self.certificate = built.public_bytes(serialization.Encoding.PEM).decode("ascii")
        self._contexts: OrderedDict[str, tuple[dt.datetime, ssl.SSLContext]] = OrderedDict()

    def context(self, host: str) -> ssl.SSLContext:
        """Return what a server that is `host` needs to speak TLS, HTTP/1.1 inside."""
        now = dt.datetime.now(dt.UTC)
        until, context = self._contexts.get(host, (now, None))
        if context is None or until <= now:
            context = self._make(host, now)
            self._contexts[host] = (now + _LIFE / 2, context)
            while len(self._contexts) > _MOST_HOSTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(host)
        return context

    def _make(self, host: str, now: dt.datetime) -> ssl.SSLContext:
        # A common name has 64 characters at most; clients look at the other one.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)] if len(host) <= 64 else [])
        certificate = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
            .public_key(self._leaf_key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - _BEFORE).not_valid_after(now + _LIFE)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=not list(subject))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip
        key = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _server_context(key + certificate.public_bytes(serialization.Encoding.PEM))


def _server_context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Python takes keys from files alone; this one is nowhere but in memory.
    memory = os.memfd_create("fumehood-leaf", os.MFD_CLOEXEC)
    try:
        os.write(memory, pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
