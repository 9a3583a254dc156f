"""TLS: the files of a certificate, checked before a model is loaded."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from foreword.errors import UsageError


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate, with its chain, and of its private key."""

    certfile: str
    keyfile: str


def read_certificate(certfile: str | None, keyfile: str | None) -> Certificate | None:
    """The certificate of a server, None for one without TLS. Raises UsageError for files that cannot be used together, or an encrypted key."""
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None:
        raise UsageError("TLS needs a certificate and its key; give both --ssl-certfile and --ssl-keyfile.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")  # noqa: S106  # a passphrase is not asked for
    except OSError as error:  # ssl.SSLError is one, too
        raise UsageError(
            f"'{certfile}' and '{keyfile}' are not a certificate and its unencrypted key ({error.strerror or error}); give two PEM files."
        ) from error
    return Certificate(certfile, keyfile)
