"""Certificates of erasure: what was searched and removed, as a document that proves itself unchanged.

Identifiers stand in it as slow salted hashes (scrypt, RFC 7914), so a reader who knows an identifier can check that it
is covered, and one who does not cannot list them cheaply. The digest covers everything else in it.
Pure; who makes one, and whether the platform still agrees, is not known here.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import orjson

from atoll.core.errors import IntegrityError, Invalid

FORMAT = "atoll-erasure/1"
NOT_REACHED = (
    "copies outside the platform: exports, backups of its disks and of its database",
    "folders of tasks on nodes, which follow their runs within minutes; kept indexes, caches and logs there",
    "models that had learned from it: they are named under `affected`",
    "what came in after it was completed, parts of uploads under way among that",
    "bytes of what was deleted before it, and of runs that broke off: blobs nothing refers to go within a day or so",
    "names and addresses of the platform's users, who did what, and usage records, which are kept for the accounts",
    "what files say in pictures and sound: they are searched by their names and bytes alone",
    "free space of a PostgreSQL database until it is vacuumed; SQLite's is written over",
)
"""What no erasure reaches; every certificate says so."""

_SHAPE = {"project": str, "erasure": str, "searched": dict, "scope": dict, "versions": list, "digest": str}

SCRYPT = {"n": 4096, "r": 8, "p": 1, "dklen": 32}
METHOD = "scrypt n=4096 r=8 p=1, 32 bytes, salt as given, of the UTF-8 text in lower case"


def hash_identifier(salt: str, value: str) -> str:
    """An identifier as it stands in a certificate; the same for any case of its letters."""
    found = hashlib.scrypt(
        value.casefold().encode(errors="surrogatepass"),
        salt=salt.encode(),
        n=SCRYPT["n"],
        r=SCRYPT["r"],
        p=SCRYPT["p"],
        dklen=SCRYPT["dklen"],
    )
    return found.hex()


def sealed(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate with its format and digest."""
    told = {"format": FORMAT, **{k: v for k, v in certificate.items() if k not in ("format", "digest")}}
    return told | {"digest": digest_of(told)}


def digest_of(certificate: Mapping[str, Any]) -> str:
    """SHA-256 of the certificate without its digest, as JSON with sorted keys."""
    rest = {name: value for name, value in certificate.items() if name != "digest"}
    return "sha256:" + hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def opened(data: bytes) -> dict[str, Any]:
    """The certificate in `data`; Invalid when it is none, IntegrityError when it was changed."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid(
            f"this is no certificate: {error}", field="certificate", hint="the JSON file of an erasure"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Invalid("this is no certificate of an erasure", field="certificate", hint=f"its format is {FORMAT}")
    lacking = [name for name, kind in _SHAPE.items() if not isinstance(found.get(name), kind)]
    if lacking:
        words = f"this is no whole certificate: it lacks {', '.join(lacking)}"
        raise Invalid(words, field="certificate", hint="fetch it from the platform")
    if not hmac.compare_digest(str(found.get("digest")), digest_of(found)):
        raise IntegrityError("the certificate was changed: its digest does not fit", hint="fetch it from the platform")
    return found


def covers(certificate: Mapping[str, Any], value: str) -> bool:
    """Whether the identifier was searched for."""
    searched = certificate["searched"]
    wanted = hash_identifier(searched["salt"], value)
    return any(wanted in values for values in searched["identifiers"].values())


def lines(certificate: Mapping[str, Any]) -> list[str]:
    """A certificate to print."""
    identifiers = certificate["searched"]["identifiers"]
    counted = ", ".join(f"{len(values)} {name}" for name, values in identifiers.items() if values)
    scope, blobs = certificate["scope"], certificate["blobs"]
    found = [
        "Certificate of erasure",
        f"  erasure      {certificate['project']}/{certificate['erasure']} ({certificate['uid']})",
        f"  reason       {certificate['reason'] or 'none given'}",
        f"  requested    {_moment(certificate['requested_at'])}",
        f"  completed    {_moment(certificate['completed_at'])}",
        f"  searched for {counted} (hashed: {METHOD})",
        f"  searched in  {len(scope['versions'])} versions with {scope['rows']} rows, {scope['files']} files",
    ]
    found += [_version_line(version) for version in certificate["versions"]] or ["  no version held any of it"]
    found += [f"  file {name} removed" for name in certificate["files_removed"]]
    found += [f"  file {name} could not be searched inside" for name in scope["files_not_searched"]]
    found += _record_lines(certificate)
    found.append(f"  blobs        {blobs['deleted']} deleted, {blobs['kept']} kept because others refer to them")
    for kind, names in certificate["affected"].items():
        found.append(f"  affected     {kind}: {', '.join(names)}")
    found += [f"  not reached  {words}" for words in certificate["not_reached"]]
    return [*found, f"  digest       {certificate['digest']}"]


def _record_lines(certificate: Mapping[str, Any]) -> list[str]:
    """What of tables and resources is told; certificates of older versions of the platform say nothing of them."""
    removed = certificate.get("records_removed", {})
    seen = certificate["scope"].get("records", {})
    found = [f"  {name:<12} {removed.get(name, 0)} of {count} removed" for name, count in seen.items()]
    found += [f"  {name} removed, whose record quoted it" for name in certificate.get("runs_removed", ())]
    return found + [f"  {name} still says it: change it by hand" for name in certificate.get("named_elsewhere", ())]


def _version_line(version: Mapping[str, Any]) -> str:
    removed = ", ".join(f"{count} of {part}" for part, count in version["removed"].items()) or "no rows"
    words = f"{removed}, {version['shards_rewritten']} shards written anew"
    return f"  {version['name']}: {words}; {version['before'][:19]}… became {version['after'][:19]}…"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
