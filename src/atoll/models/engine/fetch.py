"""Import a model: get its files, check them, scan them, read their facts, store them.

Run as `python -m atoll.models.engine.fetch` in a task directory. Nothing is stored unless every check passed.
Reads input.json {"source", "files", "sha256", "licence"}; leaves result.json with blobs, facts, origin and scan.
A source that cannot be reached exits 1 (try again); anything wrong with the model itself is a permanent failure.
It does not know whether the model is any good, nor who may use it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.core import task
from atoll.core.blobs import BlobStore, digest_of_file
from atoll.core.errors import IntegrityError, Invalid
from atoll.core.origins.obtain import Obtained, obtain
from atoll.models import formats, sources
from atoll.models.gguf import is_gguf
from atoll.models.safety import Scan, require_safe, scan
from atoll.models.sources import Source

REPORT_EVERY_S = 0.25
PATTERNS_MAX = 100
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FetchInput:
    """What to import. `files` are patterns; `sha256` maps file names to hex digests the files must have."""

    source: Source
    files: tuple[str, ...] | None
    sha256: Mapping[str, str]
    licence: str | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FetchInput:
        """The checked input; Invalid names the field at fault."""
        text, files, sums, licence = (data.get(key) for key in ("source", "files", "sha256", "licence"))
        if not isinstance(text, str):
            raise Invalid(f"source is {text!r}, not a string", field="source")
        if files is not None and not (_is_strings(files) and len(files) <= PATTERNS_MAX):
            raise Invalid(f"files is {files!r}, not a list of at most {PATTERNS_MAX} patterns", field="files")
        if licence is not None and not isinstance(licence, str):
            raise Invalid(f"licence is {licence!r}, not a string", field="licence")
        return cls(sources.parse(text), tuple(files) if files else None, _checksums(sums), licence)


def import_model(data: dict[str, Any]) -> dict[str, Any]:
    """Import what the input names and return the result."""
    wanted = FetchInput.from_dict(data)
    store = BlobStore(task.blobs_url())
    with _scratch() as folder:
        fetched = fetch(wanted, task.cache_dir(), folder)
        digests = _checked(fetched, wanted.sha256)
        early = require_safe(scan(fetched.files))
        facts = describe(fetched)
        findings = require_safe(Scan(early.findings + scan({}, facts.chat_templates).findings))
        files = _stored(fetched, store)
    origin = {
        "source": str(wanted.source),
        "resolved": fetched.resolved,
        "sha256": fetched.sha256 or _combined(digests),
    }
    return {
        "files": files,
        "format": facts.format,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "context_length": facts.context_length,
        "quantization": facts.quantization,
        "licence": wanted.licence or fetched.licence or facts.licence,
        "origin": origin,
        "chat_template": bool(facts.chat_templates),
        "metadata": facts.metadata,
        "scan": findings.to_dict(),
    }


def fetch(wanted: FetchInput, cache: Path, folder: Path) -> Obtained:
    """The files of the source on this machine; `folder` is for what must be unpacked."""

    def choose(names: list[str]) -> list[str]:
        return sources.choose(names, wanted.files, str(wanted.source))

    return obtain(wanted.source, choose, cache, folder, _Reporter)


def describe(fetched: Obtained) -> formats.ModelFacts:
    """The facts of the model; Invalid unless it is a whole model in a format we know."""
    if sources.PREDICTOR_MANIFEST in fetched.files:
        return formats.predictor_facts(sum(path.stat().st_size for path in fetched.files.values()))
    models = [path for name, path in fetched.files.items() if name.lower().endswith(".gguf") or is_gguf(path)]
    if not models and not any(name.endswith(".safetensors") for name in fetched.files):
        raise Invalid(
            f"{', '.join(sorted(fetched.files)[:5])}: neither GGUF nor safetensors",
            field="files",
            hint=f"import a model in one of these formats, or a folder with {sources.PREDICTOR_MANIFEST}",
        )
    if len(models) > 1:
        raise Invalid(f"{len(models)} GGUF files", field="files", hint="import one at a time")
    facts = formats.read_gguf(models[0]) if models else formats.read_safetensors(_as_folder(fetched))
    if facts.kind != "model":
        raise Invalid("this is an adapter, not a model", field="files", hint="an adapter comes from a training run")
    return facts


# -- checks and storing --------------------------------------------------------------------------------------------


def _checked(fetched: Obtained, expected: Mapping[str, str]) -> dict[str, str]:
    """Name -> sha256 hex of every file; IntegrityError when one is not what was promised."""
    if unknown := expected.keys() - fetched.files.keys():
        raise Invalid(
            f"sha256 names files that are not imported: {', '.join(sorted(unknown))}",
            field="sha256",
            hint=f"imported: {', '.join(sorted(fetched.files))}",
        )
    report, digests, done_bytes = _Reporter("check"), {}, 0
    total_bytes = sum(path.stat().st_size for path in fetched.files.values())
    for name, path in fetched.files.items():
        digests[name] = digest_of_file(path).removeprefix("sha256:")
        for promised in (expected.get(name), (fetched.published or {}).get(name)):
            if promised is not None and promised != digests[name]:
                raise _mismatch(name, promised, digests[name])
        done_bytes += path.stat().st_size
        report(done_bytes, total_bytes)
    return digests


def _mismatch(name: str, expected: str, got: str) -> IntegrityError:
    return IntegrityError(
        f"{name}: expected sha256 {expected}, got {got}; nothing was stored",
        hint="the source changed or was tampered with: compare with its publisher",
        file=name,
        expected=expected,
        got=got,
    )


def _stored(fetched: Obtained, store: BlobStore) -> list[dict[str, Any]]:
    report, files, done_bytes = _Reporter("store"), [], 0
    total_bytes = sum(path.stat().st_size for path in fetched.files.values())
    for name, path in sorted(fetched.files.items()):
        blob = store.put_file(path)
        files.append({"name": name, "digest": blob.digest, "size_bytes": blob.size_bytes})
        done_bytes += blob.size_bytes
        report(done_bytes, total_bytes)
    return files


def _combined(digests: Mapping[str, str]) -> str:
    """One checksum for all files: of the file itself when there is one, else of the lines `sha256sum` would print."""
    if len(digests) == 1:
        return "sha256:" + next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def _as_folder(fetched: Obtained) -> Path:
    """The folder the safetensors files lie in."""
    return next(path for name, path in fetched.files.items() if name.endswith(".safetensors")).parent


class _Reporter:
    """Bytes done as task progress, a few times a second at most."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._last = 0.0

    def __call__(self, done_bytes: float, total_bytes: float | None) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY_S or done_bytes == total_bytes:
            self._last = now
            task.report_progress(self._stage, done_bytes, total_bytes, "byte")


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="import-", dir=task.task_dir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _checksums(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"sha256 is {value!r}, not an object of file names", field="sha256")
    sums = {str(name): str(digest).lower().removeprefix("sha256:") for name, digest in value.items()}
    for name, digest in sums.items():
        if not _HEX.fullmatch(digest):
            raise Invalid(f"sha256 of {name} is {digest!r}", field=f"sha256.{name}", hint="64 hex digits")
    return sums


if __name__ == "__main__":
    task.run(import_model)
