"""Which uploaded files hold one of some texts.

A file is searched by its name and as bytes, the texts in the encodings they may stand in; a packed one (gzip, zip, tar,
Parquet, PDF …) is unpacked, and read as curation reads it too, for text that its bytes hold in pieces. What can be
searched in neither way is named, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.core.errors import AtollError, IntegrityError, NotFound
from atoll.data.engine.read.lines import Readable
from atoll.data.engine.versions.unpacking import HEAD_BYTES, Unpacking, is_packed
from atoll.data.sought import Sought, forms_of
from atoll.governance.uploads import Uploads

CHUNK_BYTES = 4 << 20
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
    sought = Sought.of({"texts": texts, "documents": (), "sources": (), "files": ()})
    unpacking = Unpacking(texts, sought, lambda stream: holds(stream, needles))
    for number, file in enumerate(files if texts else ()):
        if sought.is_in(file["name"]):
            holding.append(file["id"])
            continue
        try:
            with uploads.open(file["digest"], is_sealed=file.get("sealed", False)) as stream:
                is_closed = is_packed(stream.read(HEAD_BYTES))
                stream.seek(0)
                found = holds(stream, needles)
            readable, inside = True, False
            if is_closed and not found:
                readable, inside = _read_inside(file, sought, unpacking, uploads, work)
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


def holds(stream: Readable, needles: Sequence[bytes]) -> bool:
    """Whether one of the needles stands in the stream, whatever the case of its ASCII letters."""
    overlap = max(map(len, needles), default=1) - 1
    before = b""
    for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
        window = before + chunk.lower()
        if any(needle in window for needle in needles):
            return True
        before = window[-overlap:] if overlap else b""
    return False


def _read_inside(
    file: Mapping[str, Any], sought: Sought, unpacking: Unpacking, uploads: Uploads, work: Path
) -> tuple[bool, bool]:
    """(whether all of it could be read, whether it holds a text): as bytes unpacked, and as curation reads it."""
    from atoll.data.engine.read import Quarantined  # its parsers are many, and most erasures need none

    digest = str(file["digest"])
    path = work / "file" / digest.replace(":", "-") / Path(str(file["name"])).name
    uploads.fetch(digest, path, is_sealed=file.get("sealed", False))
    try:
        found, is_whole, needs_reader = unpacking.search(path)
        for item in () if found else _items(str(file["name"]), path):
            if isinstance(item, Quarantined):
                is_whole = is_whole and not needs_reader
            elif sought.is_in(item.id, item.title, item.text):
                return True, True
    except AtollError:
        return not needs_reader and is_whole, False
    finally:
        path.unlink(missing_ok=True)
    return is_whole, found


def _items(name: str, path: Path) -> Iterator[Any]:
    from atoll.data.engine.curate import plan
    from atoll.data.engine.read import documents, plan_parts

    for part in plan_parts(plan.Source("files"), "files", files=[(name, str(path))]):
        yield from documents(part)
