"""Where the server is and with which key: command line, then `ATOLL_*` environment, then <home>/credentials.toml.

The file is TOML, one table a context (`[default]` unless ATOLL_CONTEXT says otherwise), mode 600. Other contexts
in it are kept when one is written. Knows nothing of whether the key is any good.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.core.errors import Invalid, NotFound
from atoll.core.files import write_bytes
from atoll.core.resources import DEFAULT_PROJECT

FILE_NAME = "credentials.toml"
DEFAULT_ADDRESS = "http://127.0.0.1:8400"
DEFAULT_CONTEXT = "default"
PRIVATE_MODE = 0o600
_FIELDS = ("address", "project", "key")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One context: an address, a project and a key."""

    address: str = DEFAULT_ADDRESS
    project: str = DEFAULT_PROJECT
    key: str = ""

    def __repr__(self) -> str:
        return f"Credentials(address={self.address!r}, project={self.project!r}, key={'…' if self.key else ''!r})"


def credentials_path(home: Path) -> Path:
    """The credentials file of a home."""
    return home / FILE_NAME


def read_contexts(home: Path) -> dict[str, Credentials]:
    """Every context in the file, none when there is no file; Invalid names the file and the field."""
    path = credentials_path(home)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not valid TOML: {error}", field=str(path), hint="mend it or delete it") from error
    return {name: _context(path, name, table) for name, table in tables.items()}


def write_context(home: Path, credentials: Credentials, context: str = DEFAULT_CONTEXT) -> Path:
    """Set one context, keep the others; the file is readable by its owner alone. Returns its path."""
    contexts = {**read_contexts(home), context: credentials}
    text = "\n".join(f"[{_key(name)}]\n{_table(c)}" for name, c in contexts.items())
    home.mkdir(parents=True, exist_ok=True)
    path = credentials_path(home)
    write_bytes(path, text.encode(), mode=PRIVATE_MODE)
    return path


def is_private(path: Path) -> bool:
    """Whether only its owner may read the file; a file that is not there is private."""
    try:
        return not stat.S_IMODE(path.stat().st_mode) & 0o077
    except FileNotFoundError:
        return True


def resolve_credentials(
    home: Path | None = None,
    *,
    address: str | None = None,
    project: str | None = None,
    key: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credentials:
    """The credentials in force: what is given wins over `ATOLL_*`, which wins over the file, then the defaults.

    A key in the file goes only to the address it stands with: another address needs its own key.
    """
    home = home or Path(environment.get("ATOLL_HOME") or "~/.atoll").expanduser()
    saved = _saved(home, environment.get("ATOLL_CONTEXT", ""))
    chosen = address or environment.get("ATOLL_ADDRESS") or saved.address
    return Credentials(
        chosen,
        project or environment.get("ATOLL_PROJECT") or saved.project,
        key or environment.get("ATOLL_KEY") or (saved.key if chosen == saved.address else ""),
    )


def _saved(home: Path, context: str) -> Credentials:
    contexts = read_contexts(home)
    if context and context not in contexts:
        known = ", ".join(contexts) or "none"
        raise NotFound(f"there is no context {context!r} in {credentials_path(home)}", hint=f"it has: {known}")
    return contexts.get(context or DEFAULT_CONTEXT, Credentials())


def _context(path: Path, name: str, table: Any) -> Credentials:
    if not isinstance(table, dict):
        raise Invalid(f"{path}: {name} must be a table", field=name, hint=f"write [{name}] and its fields below it")
    for field, value in table.items():
        if field not in _FIELDS or not isinstance(value, str):
            raise Invalid(
                f"{path}: [{name}] {field} cannot be {value!r}", field=field, hint=f"texts: {', '.join(_FIELDS)}"
            )
    return Credentials(**table)


def _table(credentials: Credentials) -> str:
    return "".join(f"{field} = {_text(getattr(credentials, field))}\n" for field in _FIELDS)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    """A TOML basic string; its escapes are JSON's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
