"""Secrets: named values of a project, sealed with AES-256-GCM (NIST SP 800-38D) under the centre's own key.

A sealed value is base64 of one byte of version, a random nonce of 12 bytes and the ciphertext with its tag. Project
and name are its associated data, so a value copied to another project or name does not open. What is stored, shown,
noted as an event or logged is never a value, and errors name only names.
Knows nothing of what the values are for. Whoever has the key file and the database has the values: keep them apart.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.core.files import write_bytes
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.sealed import DataKey
from atoll.core.store import Create, Scope
from atoll.governance.data_keys import READERS, REFERENCE, DataKeys, to_text
from atoll.governance.rotation import DATA_KEY, KEY_VALUE, rotated

log = logging.getLogger(__name__)

KEY_BYTES = 32
NONCE_BYTES = 12
VALUES_MAX = 64
VALUE_BYTES_MAX = 65_536
_VERSION = b"\x01"
_VALUE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Secrets:
    """Seals and opens under the first of `keys`; what older keys sealed opens too."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert keys and all(len(key) == KEY_BYTES for key in keys)
        self._ciphers = [AESGCM(key) for key in keys]
        self._data_keys = DataKeys(keys)

    def seal(self, project: str, name: str, values: Mapping[str, str]) -> str:
        """The values as one text that may be stored."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[0].encrypt(nonce, orjson.dumps(dict(values)), _bound_to(project, name))
        return base64.b64encode(_VERSION + nonce + sealed).decode()

    def open(self, project: str, name: str, sealed: str) -> dict[str, str]:
        """The values; IntegrityError when they were changed, moved here, or sealed under another key."""
        try:
            data = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        nonce, ciphertext = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        for cipher in self._ciphers if data[:1] == _VERSION and ciphertext else ():
            try:
                values: dict[str, str] = orjson.loads(cipher.decrypt(nonce, ciphertext, _bound_to(project, name)))
            except InvalidTag:
                continue
            return values
        raise IntegrityError(
            f"secret {name!r} of project {project!r} does not open with the centre's key",
            hint="bring back the run/secrets.key it was sealed with, or delete the secret and set it anew",
        )

    def value(self, scope: Scope, project: str, reference: str, owners: Collection[str] = ()) -> str:
        """The value `reference` (NAME/VALUE) names among the secrets of `project`.

        A secret the platform made for one resource is there only for what belongs to it: its owner is in `owners`.
        The key of the project's uploads is there only for what belongs to a resource whose engine reads them.
        Invalid for no such reference, NotFound when there is no such secret or value, IntegrityError as `open`.
        """
        if reference == REFERENCE and _may_read_uploads(scope, owners):
            return to_text(self.data_keys(scope, project))
        name, value_name = parse_reference(reference)
        found = scope.find("Secret", name, project)
        if found is None or found.is_deleting or (found.owner is not None and found.owner not in owners):
            raise NotFound(
                f"there is no secret {name!r} in project {project!r}", hint=f"atoll secrets set {name} {value_name}=-"
            )
        values = self.open(project, name, found.spec["sealed"])
        if value_name not in values:
            known = ", ".join(sorted(values)) or "none"
            raise NotFound(
                f"secret {name!r} of project {project!r} has no value {value_name!r}", hint=f"it has {known}"
            )
        return values[value_name]

    def data_keys(self, scope: Scope, project: str) -> list[DataKey]:
        """The keys of the project's uploads, newest first; NotFound when there is no such project."""
        uid = project if project == SYSTEM_PROJECT else scope.get("Project", project, SYSTEM_PROJECT).uid
        made = rotated(scope, project)
        keys = [self._rotated_key(key) for key in made]
        return keys if made and made[-1].spec["is_alone"] else keys + self._data_keys.of(uid)

    def new_data_key(self, scope: Scope, project: str) -> Create:
        """The write of a fresh random key that seals the project's uploads from then on."""
        number = 1 + max((int(key.spec["number"]) for key in rotated(scope, project)), default=0)
        name = f"uploads-{number}"
        value = base64.b64encode(os.urandom(KEY_BYTES)).decode()
        spec = DATA_KEY.parse_spec({"number": number, "sealed": self.seal(project, name, {KEY_VALUE: value})})
        return Create("DataKey", project, name, spec, {"phase": "pending"}, reason="Rotated")

    def _rotated_key(self, key: Resource) -> DataKey:
        values = self.open(key.project, key.name, key.spec["sealed"])
        return DataKey(base64.b64decode(values[KEY_VALUE]))


def parse_reference(reference: str) -> tuple[str, str]:
    """Secret and value named by `NAME/VALUE`."""
    name, slash, value_name = reference.partition("/")
    if not name or not slash or not _VALUE_NAME.fullmatch(value_name):
        raise Invalid(
            f"{reference!r} names no value of a secret", field="secret", hint="NAME/VALUE, e.g. openai/API_KEY"
        )
    return name, value_name


def changed(values: Mapping[str, str], given: Mapping[str, str | None]) -> dict[str, str]:
    """`values` with those of `given` set, or taken away where None; Invalid names what cannot be one."""
    for name, value in given.items():
        if not _VALUE_NAME.fullmatch(name):
            raise Invalid(f"{name!r} cannot name a value", field="values", hint="1 to 128 of letters, digits, _ . -")
        if value is not None and (not value or "\0" in value):
            raise Invalid(f"value {name!r} is empty or holds a NUL", field=f"values.{name}", hint="give it a text")
        size_bytes = len((value or "").encode(errors="surrogatepass"))
        if size_bytes > VALUE_BYTES_MAX:
            words = f"value {name!r} has {size_bytes} bytes, the limit is {VALUE_BYTES_MAX}"
            raise Invalid(words, field=f"values.{name}", hint="keep large files as blobs")
    merged = {**values, **given}
    kept = {name: value for name, value in merged.items() if value is not None}
    if len(kept) > VALUES_MAX:
        raise Invalid(f"{len(kept)} values, the limit is {VALUES_MAX}", field="values", hint="use several secrets")
    return kept


def load_keys(path: Path, given: str = "") -> list[bytes]:
    """The centre's keys, newest first: from the setting `given` (base64, comma between several), else from `path`.

    The file holds one key a line; without it, one is made (mode 600). Invalid says where a key is wrong, never what
    it is.
    """
    if given:
        return [_key(text, "setting 'secrets_key'") for text in given.split(",")]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, base64.b64encode(os.urandom(KEY_BYTES)) + b"\n", mode=0o600)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        log.warning("others may read %s; close it with: chmod 600 %s", path, path)
    return [_key(line, str(path)) for line in path.read_text().split("\n") if line.strip()] or [_key("", str(path))]


def _may_read_uploads(scope: Scope, owners: Collection[str]) -> bool:
    found = (scope.by_uid(uid) for uid in owners if uid)
    return any(owner is not None and owner.kind in READERS for owner in found)


def _key(text: str, origin: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Invalid(f"{origin} holds no key", field="secrets_key", hint="32 bytes in base64: openssl rand -base64 32")
    return key


def _bound_to(project: str, name: str) -> bytes:
    return f"atoll-secret\0{project}\0{name}".encode()
