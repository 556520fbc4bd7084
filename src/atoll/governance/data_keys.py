"""Data keys: each project's key for its uploads, derived from the centre's own keys, or random once it was rotated.

The first data key of a project is HKDF-SHA256 (RFC 5869) of a key of the centre, bound to the project's uid: nothing is
stored, a project of the same name made later has another, and after the centre's key was changed what older ones sealed
still opens. A rotated key is 32 random bytes in a DataKey, sealed with the centre's key; taken out of the store, it is
gone for good. The newest seals; older ones open until nothing needs them, and who sees to that is not known here.
An engine that must read uploads is given its project's keys in its environment, as one text, like any secret.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from atoll.core.errors import Invalid
from atoll.core.sealed import KEY_BYTES, DataKey

VARIABLE = "ATOLL_UPLOADS_KEY"
"""Environment of a task that reads uploads: base64 of the keys, newest first, comma between."""

RESERVED = "atoll-"
"""How names of secrets begin that nobody sets: the platform derives their values."""

REFERENCE = f"{RESERVED}uploads/KEY"
"""The secret a task is given VARIABLE from."""

READERS = frozenset({"Batch", "CurationRun", "DatasetImport", "Erasure", "LabelRun"})
"""Kinds whose tasks are given the key: their engines read uploads. What people run themselves is not."""


class DataKeys:
    """Derives data keys. `centre_keys`: newest first, as governance.secrets.load_keys gives them."""

    def __init__(self, centre_keys: Sequence[bytes]) -> None:
        assert centre_keys
        self._centre_keys = list(centre_keys)

    def of(self, project_uid: str) -> list[DataKey]:
        """The keys of a project, newest first: seal with the first, open with all."""
        return [_derived(key, project_uid) for key in self._centre_keys]


def to_text(keys: Sequence[DataKey]) -> str:
    """Keys as the value of VARIABLE."""
    return ",".join(base64.b64encode(key.value).decode() for key in keys)


def from_text(text: str) -> list[DataKey]:
    """The keys in the value of VARIABLE; Invalid, never telling the value, when it holds none."""
    try:
        values = [base64.b64decode(part, validate=True) for part in text.split(",")]
    except (binascii.Error, ValueError):
        values = []
    if not values or any(len(value) != KEY_BYTES for value in values):
        raise Invalid(f"{VARIABLE} holds no key", field=VARIABLE, hint="the agent sets it for tasks that read uploads")
    return [DataKey(value) for value in values]


def from_environment() -> list[DataKey]:
    """The keys this task was given, none if it was given none; taken out, so that no child of it inherits them."""
    text = os.environ.pop(VARIABLE, "")
    return from_text(text) if text else []


def _derived(centre_key: bytes, project_uid: str) -> DataKey:
    info = b"atoll uploads\0" + project_uid.encode()
    return DataKey(HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(centre_key))
