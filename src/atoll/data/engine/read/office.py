"""Office packages: what is checked before a parser sees a .docx or .xlsx, which are ZIP files of XML.

Declarations of document types are refused: such files never have them, and entity bombs are made of them.
"""

from __future__ import annotations

import io
import zipfile

from atoll.data.engine.read.expand import check_expansion
from atoll.data.engine.read.item import Limits, Unreadable

_XML = (".xml", ".rels", ".vml")
_DECLARATIONS = tuple(
    mark.encode(encoding) for mark in ("<!DOCTYPE", "<!ENTITY") for encoding in ("utf-8", "utf-16-le", "utf-16-be")
)
_ENCRYPTED = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def checked(data: bytes, limits: Limits) -> io.BytesIO:
    """The package, fit to be parsed; raises Unreadable."""
    if not data:
        raise Unreadable("the file is empty")
    if data.startswith(_ENCRYPTED):
        raise Unreadable("it is encrypted, or of the format before 2007")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            _check(package, len(data), limits)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise Unreadable(f"it is not a sound package: {error}") from error
    return io.BytesIO(data)


def _check(package: zipfile.ZipFile, size: int, limits: Limits) -> None:
    expanded = 0
    for info in package.infolist():
        expanded += info.file_size
        if expanded > 4 * limits.file_bytes_max:
            raise Unreadable(f"it expands to more than {4 * limits.file_bytes_max} bytes")
        check_expansion(size, expanded, limits)
    for info in package.infolist():
        if info.filename.lower().endswith(_XML):
            content = package.read(info)
            if any(mark in content for mark in _DECLARATIONS):
                raise Unreadable(f"its part {info.filename[:100]} declares a document type, as entity bombs do")
