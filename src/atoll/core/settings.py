"""Every setting of Atoll in one typed place: defaults, then `<home>/atoll.toml`, then `ATOLL_*` environment.

The reference page is generated from this class.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atoll.core.errors import Invalid

ENVIRONMENT_PREFIX = "ATOLL_"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Settings(BaseModel):
    """What an operator may set. Environment names are `ATOLL_` and the upper-case field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(Path("~/.atoll"), description="Where this machine keeps its state.", validate_default=True)
    listen: str = Field(
        "127.0.0.1:8400", description="Address of the one door, host:port; loopback unless told otherwise."
    )
    database: str = Field("", description="Database URL; empty means SQLite in the home.")
    blobs: str = Field("", description="Blob store URL (a folder or s3://…); empty means a folder in the home.")
    node: str = Field("", description="Name of this machine in the fleet; empty means its host name.")
    site: str = Field("centre", description="Site this machine belongs to.")
    log_level: str = Field("INFO", description="Least level that is logged: DEBUG, INFO, WARNING or ERROR.")
    lease_ttl_s: float = Field(
        15.0,
        gt=0,
        description="Lease time of a node, seconds: without contact for this long it stops tasks that may not run "
        "twice; after two it is lost.",
    )
    change_history: int = Field(
        200_000, ge=1_000, description="How many changes the feed keeps before old ones are dropped."
    )
    body_bytes_max: int = Field(32 << 20, gt=0, description="Largest request body the door accepts, in bytes.")
    public_url: str = Field(
        "", description="Address others reach the door by, http(s)://host[:port]; empty means the one listened on."
    )
    file_bytes_max: int = Field(512 << 20, gt=0, description="Largest file that may be uploaded, in bytes.")
    responses_kept_days: float = Field(
        30.0, gt=0, description="Days after which stored responses (not conversations) are forgotten."
    )
    secrets_key: str = Field(
        "",
        repr=False,
        description="Key that seals secrets: 32 bytes in base64, older ones after commas; empty means the file "
        "run/secrets.key in the home. Give it as ATOLL_SECRETS_KEY, the same to every server of a database.",
    )
    gateway_workers: int = Field(
        1, ge=1, le=64, description="Gateway processes of `atoll up` behind the one door; one for each core it may use."
    )
    requests_per_key_max: int = Field(256, gt=0, description="Requests one API key may have in flight per gateway.")

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.home / 'atoll.db'}"

    @property
    def blobs_url(self) -> str:
        return self.blobs or str(self.home / "blobs")

    @property
    def door_url(self) -> str:
        """Where tasks and people reach the door."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104 - compared, not bound
        return self.public_url.rstrip("/") or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


def load(overrides: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force; Invalid names the setting, where it came from and what would be valid.

    `overrides` (command-line options that were given) win over everything.
    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    from_environment = _environment(environment)
    home = Path(given.get("home") or from_environment.get("home") or "~/.atoll").expanduser().resolve()
    values = {**_file(home / "atoll.toml"), **from_environment, **given, "home": home}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(p) for p in first["loc"])
        if first["type"] == "extra_forbidden":
            raise _unknown(name, home / "atoll.toml") from error
        known = Settings.model_fields.get(name)
        shown = repr(first["input"]) if known is None or known.repr else "what was given"
        raise Invalid(
            f"setting {name!r} cannot be {shown}",
            field=name,
            hint=f"{first['msg']}; set in {home / 'atoll.toml'}, ATOLL_{name.upper()} or on the command line",
        ) from error
    return _checked(settings)


def _unknown(name: str, path: Path) -> Invalid:
    valid = sorted(Settings.model_fields)
    nearest = difflib.get_close_matches(name, valid, 1, 0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return Invalid(f"there is no setting {name!r} (in {path})", field=name, hint=f"{hint}valid: {', '.join(valid)}")


def _checked(settings: Settings) -> Settings:
    host, _, port = settings.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise Invalid(
            f"setting 'listen' cannot be {settings.listen!r}", field="listen", hint="host:port, e.g. 127.0.0.1:8400"
        )
    if settings.log_level not in LOG_LEVELS:
        raise Invalid(
            f"setting 'log_level' cannot be {settings.log_level!r}",
            field="log_level",
            hint=f"valid: {', '.join(LOG_LEVELS)}",
        )
    return settings


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    names = {f"{ENVIRONMENT_PREFIX}{name.upper()}": name for name in Settings.model_fields}
    return {field: environment[name] for name, field in names.items() if environment.get(name)}


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not valid TOML: {error}", field=str(path)) from error
