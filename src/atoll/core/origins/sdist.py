"""Files that travel inside source distributions, where a package has no wheel. Nothing is built, nothing is run.

pip would run a package's own build to look at its source, so the archive is fetched here from where pip is told to
look (its index, extra indexes, folders of links), found by the index's own page (PEP 503, 691) and checked by the
checksum written there. Members are taken as of a wheel: regular files below the root, bounded.
"""

from __future__ import annotations

import email.parser
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from atoll.core.blobs import digest_of_file
from atoll.core.errors import IntegrityError, NotFound, TooLarge, Unavailable
from atoll.core.files import disk_full_named
from atoll.core.origins.pypi import EXTRACTED_BYTES_MAX, MEMBERS_MAX, Progress, declared_licence
from atoll.core.origins.source import Source

INDEX = "https://pypi.org/simple"
TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 20
METADATA_BYTES_MAX = 1 << 20
_ANCHOR = re.compile(r'<a\b[^>]*\bhref\s*=\s*["\']([^"\']+)["\']', re.IGNORECASE)
_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass(frozen=True, slots=True)
class Link:
    """Where an archive lies: a URL or a path, and the checksum (hex) promised of it, if any."""

    where: str
    sha256: str = ""


def download(source: Source, cache: Path, progress: Progress) -> Path:
    """The source archive of a package, from `cache` or where pip is told to look.

    NotFound when there is none, Unavailable when an index does not answer, IntegrityError for other bytes.
    """
    folder = cache / "sdist" / f"{normal(source.name)}=={source.version}"
    kept = next(iter(sorted(folder.glob("*.tar.gz"))), None)
    if kept is not None:
        return kept
    link = next((found for found in _links(source) if is_wanted(found.where, source)), None)
    if link is None:
        raise NotFound(f"no index has an archive of {source}", hint="check name and version")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / unquote(PurePosixPath(urlsplit(link.where).path).name)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with disk_full_named(part):
        _fetch(link.where, part, progress)
    got = digest_of_file(part).removeprefix("sha256:")
    if link.sha256 and got != link.sha256:
        part.unlink()
        raise IntegrityError(f"{link.where} has sha256 {got}, the index says {link.sha256}", hint="fetch it again")
    os.replace(part, target)
    return target


def names(archive: Path) -> list[str]:
    """The names of the regular files in it that may be extracted."""
    with _opened(archive) as tar:
        return [member.name for member in tar.getmembers() if _is_plain(member)]


def licence(archive: Path) -> str | None:
    """The licence its PKG-INFO declares."""
    with _opened(archive) as tar:
        found = next((m for m in tar.getmembers() if m.name.count("/") == 1 and m.name.endswith("/PKG-INFO")), None)
        stream = tar.extractfile(found) if found is not None else None
        text = stream.read(METADATA_BYTES_MAX).decode(errors="replace") if stream is not None else ""
    return declared_licence(email.parser.Parser().parsestr(text, headersonly=True))


def extract(archive: Path, wanted: list[str], into: Path, progress: Progress) -> dict[str, Path]:
    """Write the members `wanted` under `into`; member name to path."""
    paths: dict[str, Path] = {}
    with _opened(archive) as tar:
        members = [member for member in tar.getmembers() if member.name in set(wanted) and _is_plain(member)]
        total_bytes, done_bytes = sum(member.size for member in members), 0
        if total_bytes > EXTRACTED_BYTES_MAX:
            raise TooLarge(f"{archive.name} would expand to {total_bytes} bytes, the limit is {EXTRACTED_BYTES_MAX}")
        for member in members:
            stream = tar.extractfile(member)
            assert stream is not None
            target = into / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with disk_full_named(target), target.open("wb") as file:
                while chunk := stream.read(CHUNK_BYTES):
                    file.write(chunk)
            paths[member.name] = target
            done_bytes += member.size
            progress(done_bytes, total_bytes)
    return paths


def normal(name: str) -> str:
    """A package's name as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_wanted(where: str, source: Source) -> bool:
    """Whether a link leads to the archive of this very version."""
    file = unquote(PurePosixPath(urlsplit(where).path).name)
    stem = file.removesuffix(".tar.gz")
    name, _, version = stem.rpartition("-")
    return stem != file and normal(name) == normal(source.name) and version == source.version


def _links(source: Source) -> Iterator[Link]:
    """Every link pip would look at."""
    for folder in _setting("find-links").split():
        path = Path(unquote(urlsplit(folder).path) if folder.startswith("file:") else folder)
        if path.is_dir():
            yield from (Link(str(file)) for file in sorted(path.iterdir()))
    if _setting("no-index").lower() in ("1", "true", "yes"):
        return
    for index in [_setting("index-url") or INDEX, *_setting("extra-index-url").split()]:
        yield from _of_index(f"{index.rstrip('/')}/{normal(source.name)}/")


def _of_index(page: str) -> Iterator[Link]:
    if page.startswith("file:"):
        folder = Path(unquote(urlsplit(page).path))
        if folder.is_dir():
            yield from (Link(str(file)) for file in sorted(folder.iterdir()))
        return
    answer = _asked(page)
    if answer is None:
        return
    if answer.headers.get("content-type", "").startswith(_JSON):
        for file in answer.json().get("files", []):
            yield Link(urljoin(page, file["url"]), file.get("hashes", {}).get("sha256", ""))
        return
    for href in _ANCHOR.findall(answer.text):
        url, _, fragment = urljoin(page, href).partition("#")
        yield Link(url, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "")


def _asked(page: str) -> httpx.Response | None:
    """The index's page of a package; None when it has none."""
    try:
        answer = httpx.get(
            page, headers={"Accept": f"{_JSON}, text/html;q=0.5"}, timeout=TIMEOUT_S, follow_redirects=True
        )
    except httpx.HTTPError as error:
        raise Unavailable(f"cannot reach {page}: {error}", hint="check the network", retry_after_s=30.0) from error
    if answer.status_code in (404, 410):
        return None
    if answer.is_error:
        raise Unavailable(f"{page} answers {answer.status_code}", hint="try again", retry_after_s=30.0)
    return answer


def _fetch(where: str, target: Path, progress: Progress) -> None:
    if not where.startswith(("http://", "https://")):
        target.write_bytes(Path(where).read_bytes())
        return
    try:
        with httpx.stream("GET", where, timeout=TIMEOUT_S, follow_redirects=True) as answer, target.open("wb") as file:
            answer.raise_for_status()
            total_bytes, done_bytes = float(answer.headers.get("content-length") or 0), 0
            for chunk in answer.iter_bytes(CHUNK_BYTES):
                file.write(chunk)
                done_bytes += len(chunk)
                progress(done_bytes, total_bytes or None)
    except httpx.HTTPError as error:
        target.unlink(missing_ok=True)
        raise Unavailable(f"cannot fetch {where}: {error}", hint="check the network", retry_after_s=30.0) from error


def _setting(name: str) -> str:
    """What pip is told, by its environment or its configuration."""
    told = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
    if told is not None:
        return told
    for section in ("global", "download"):
        command = [sys.executable, "-m", "pip", "config", "get", f"{section}.{name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return ""


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            if len(tar.getmembers()) > MEMBERS_MAX:
                raise TooLarge(f"{archive.name} has more than {MEMBERS_MAX} members")
            yield tar
    except (tarfile.TarError, EOFError, OSError) as error:
        raise IntegrityError(f"{archive.name} is a damaged archive: {error}", hint="fetch it again") from error


def _is_plain(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isreg() and not path.is_absolute() and not {"..", "\\"} & {*path.parts, *member.name}
