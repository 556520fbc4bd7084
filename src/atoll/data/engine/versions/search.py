"""Which uploaded files hold one of some texts.

A file is searched as bytes, the texts in the encodings they may stand in; a packed one (gzip, zip, Parquet, PDF …) is
read as curation reads it. What can be searched in neither way is named, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from atoll.core.errors import AtollError, IntegrityError, NotFound
from atoll.data.sought import forms_of
from atoll.governance.uploads import Uploads

CHUNK_BYTES = 4 << 20
PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"PAR1", b"%PDF", b"BZh", b"\xfd7zXZ")
ENCODINGS = ("utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be")

Report = Callable[..., None]


def search_files(
    files: Sequence[Mapping[str, Any]], texts: Sequence[str], uploads: Uploads, work: Path, report: Report
) -> tuple[list[str], list[str]]:
    """(ids of the files that hold a text, ids of those that could not be searched).

    files are {id, name, digest, sealed}. One that does not open, for damage or a lost key, could not be searched.
    """
    holding, opaque = [], []
    needles = [form for text in texts for form in encoded(text)]
    for number, file in enumerate(files if texts else ()):
        try:
            with uploads.open(file["digest"], is_sealed=file.get("sealed", False)) as stream:
                is_packed = stream.read(8).startswith(PACKED)
                stream.seek(0)
                found = not is_packed and holds(stream, needles)
            readable, inside = _read_inside(file, texts, uploads, work) if is_packed else (True, False)
        except NotFound:
            continue
        except IntegrityError:
            readable, found, inside = False, False, False
        if found or inside:
            holding.append(file["id"])
        elif not readable:
            opaque.append(file["id"])
        report("search", number + 1, len(files), "file")
    return holding, opaque


def encoded(text: str) -> list[bytes]:
    """The bytes a text may stand as in a file: as written, all small or all capital, ASCII letters in lower case."""
    found: dict[bytes, None] = {}
    for form in (form for written in (text, text.lower(), text.upper()) for form in forms_of(written)):
        for encoding in ENCODINGS:
            try:
                found[form.encode(encoding).lower()] = None
            except UnicodeEncodeError:
                continue
    return list(found)


def holds(stream: IO[bytes], needles: Sequence[bytes]) -> bool:
    """Whether one of the needles stands in the stream, whatever the case of its ASCII letters."""
    overlap = max(map(len, needles), default=1) - 1
    before = b""
    for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
        window = before + chunk.lower()
        if any(needle in window for needle in needles):
            return True
        before = window[-overlap:] if overlap else b""
    return False


def _read_inside(file: Mapping[str, Any], texts: Sequence[str], uploads: Uploads, work: Path) -> tuple[bool, bool]:
    """(whether all of it could be read, whether it holds a text)."""
    from atoll.data.engine.read import Quarantined  # its parsers are many, and most erasures need none

    wanted = [text.casefold() for text in texts]
    digest = str(file["digest"])
    path = work / "file" / digest.replace(":", "-") / Path(str(file["name"])).name
    uploads.fetch(digest, path, is_sealed=file.get("sealed", False))
    readable = True
    try:
        for item in _items(str(file["name"]), path):
            if isinstance(item, Quarantined):
                readable = False
            elif any(text in f"{item.id}\n{item.title}\n{item.text}".casefold() for text in wanted):
                return True, True
    except AtollError:
        readable = False
    finally:
        path.unlink(missing_ok=True)
    return readable, False


def _items(name: str, path: Path) -> Iterator[Any]:
    from atoll.data.engine.curate import plan
    from atoll.data.engine.read import documents, plan_parts

    for part in plan_parts(plan.Source("files"), "files", files=[(name, str(path))]):
        yield from documents(part)
