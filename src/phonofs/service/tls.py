"""The one TLS context: the system's trust store, TLS 1.2 and up, no way to turn it off."""

import os
import ssl

import truststore


def trusting() -> ssl.SSLContext:
    """A context that verifies against the certificates this system trusts.

    OpenSSL's own locations (and ``SSL_CERT_FILE``, ``SSL_CERT_DIR``) where they hold any,
    since such a context loads them once; else those ``truststore`` knows of distributions.
    """
    context = ssl.create_default_context() if _openssl_has_store() else _distribution_store()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])  # some gateways take HTTP/2 for granted otherwise
    return context


def _distribution_store() -> ssl.SSLContext:
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _openssl_has_store() -> bool:
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return True
    return bool(paths.capath) and any(
        name.endswith(".0") for name in os.listdir(paths.capath or "/nonexistent")
    )
