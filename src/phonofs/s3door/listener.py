"""Where the S3 door listens, with which certificate, and the file of its keys. Pure but for TLS.

Made by the command ``serve``, used by the server.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from phonofs.config.values import is_loopback
from phonofs.errors import UsageError


@dataclass(frozen=True, slots=True)
class Listener:
    """An address, and what is needed to serve there.

    keys          the file of the keys
    certificate, private_key  files in PEM; None for plain HTTP
    """

    host: str
    port: int
    keys: Path
    certificate: Path | None = None
    private_key: Path | None = None

    @classmethod
    def of(
        cls, address: str, keys: Path, certificate: Path | None, private_key: Path | None
    ) -> "Listener":
        """Return what these options of the command say. Raises UsageError.

        Without TLS whoever reads along gets the recordings, so it is only for this machine.
        """
        host, colon, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
            raise UsageError(
                f"--listen {address!r} is not ADDRESS:PORT, such as 127.0.0.1:9000 or [::]:9000"
            )
        if private_key is not None and certificate is None:
            raise UsageError("--tls-key needs --tls-cert")
        if certificate is None and not is_loopback(host):
            raise UsageError(
                f"--listen {address}: other machines can be served with TLS only: "
                "give --tls-cert and --tls-key"
            )
        return cls(host, int(port), keys, certificate, private_key)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context, None for plain HTTP. Reads files. Raises UsageError."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.private_key, password=_no_password)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(
                f"--tls-cert {self.certificate} cannot be used: {error.strerror or error}"
            ) from None
        return context


def _no_password() -> str:
    raise UsageError("--tls-key has a password; a server needs one without")
