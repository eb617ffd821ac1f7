"""The TLS context of all connections: system trust store, TLS 1.2 or later, always verified."""

import os
import ssl

import truststore


def trusting() -> ssl.SSLContext:
    """Return a context that verifies against the certificates this system trusts.

    It uses OpenSSL's own locations (and ``SSL_CERT_FILE``, ``SSL_CERT_DIR``) if they hold any
    certificates, because such a context loads them only once; otherwise it uses the locations of
    distributions that ``truststore`` knows.
    """
    context = (
        ssl.create_default_context()
        if _openssl_has_store()
        else truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])  # without it some gateways assume HTTP/2
    return context


def _openssl_has_store() -> bool:
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    return bool(paths.capath) and any(
        name.endswith(".0") for name in os.listdir(paths.capath or "/nonexistent")
    )
