"""TLS credentials: temporary ones in memory for the local process, a folder of PEM for others'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellpath.core.errors import MissingFileError

if TYPE_CHECKING:
    from distributed import Security

CREDENTIALS = ("ca.pem", "cert.pem", "key.pem")


def temporary_security() -> Security:
    """Fresh TLS credentials that exist in memory only."""
    from distributed import Security

    return Security.temporary()


def security_from_folder(folder: Path | str) -> Security:
    """TLS credentials from ``ca.pem``, ``cert.pem`` and ``key.pem`` in a folder.

    Raises
    ------
    MissingFileError
        Naming the file that is not there.
    """
    from distributed import Security

    folder = Path(folder).expanduser()
    for name in CREDENTIALS:
        if not (folder / name).is_file():
            raise MissingFileError(
                f"{folder / name} does not exist; a credentials folder holds "
                f"{', '.join(CREDENTIALS)}."
            )
    ca, cert, key = (str(folder / name) for name in CREDENTIALS)
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
    )
