"""Names that survive other programs: our uid inside the UUID that QuPath asks for."""

from __future__ import annotations

import hashlib
import re
import uuid

_UID = re.compile(r"[0-9a-f]{16}")
_MARK = b"cellpat".hex()  # tells our UUIDs from all others; version 8 leaves such bits to us
_OURS = re.compile(rf"([0-9a-f]{{8}})-([0-9a-f]{{4}})-8([0-9a-f]{{3}})-8([0-9a-f]){_MARK[:2]}-"
                   rf"{_MARK[2:]}")  # fmt: skip
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def uuid_of(uid: str) -> str:
    """UUID of an object: holds a uid of 16 hexadecimal digits, else is made from it."""
    if _UID.fullmatch(uid):
        return f"{uid[:8]}-{uid[8:12]}-8{uid[12:15]}-8{uid[15]}{_MARK[:2]}-{_MARK[2:]}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, uid))


def uid_in(text: str) -> str | None:
    """The uid that `uuid_of` put into a UUID, None where there is none."""
    found = _OURS.fullmatch(text)
    return "".join(found.groups()) if found else None


def is_uuid(text: str) -> bool:
    """Whether this is a UUID as text."""
    return _UUID.fullmatch(text) is not None


def derived_uid(*parts: str) -> str:
    """A uid that is the same whenever the same object of the same file is read again."""
    joined = "\0".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
