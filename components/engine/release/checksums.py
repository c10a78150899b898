"""Digests of files: SHA-256, which names them, and CRC32C, which Cloud Storage checks."""

import base64
import hashlib
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32c_of(content: bytes | Path) -> str:
    """CRC32C of bytes or of a file, as Cloud Storage writes it: base64 of the four bytes, big-endian."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    if isinstance(content, bytes):
        checksum.update(content)
    else:
        with open(content, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                checksum.update(block)
    return base64.b64encode(checksum.digest()).decode("ascii")
