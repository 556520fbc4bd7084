"""Repositories of models and datasets on a hub that speaks Hugging Face's API.

`HF_ENDPOINT` names another hub; `HF_TOKEN` is sent where set. The revision is resolved to a commit first and only that
commit is fetched, so what is recorded is what was got. Files already in the cache are not fetched again. Checksums the
hub publishes are checked against the bytes that arrived.
It does not know what the files are: it is told which names to take.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atoll.core.errors import AtollError, Forbidden, Invalid, NotFound, Unavailable
from atoll.core.origins.source import Source

Progress = Callable[[float, float | None], None]

RepositoryKind = Literal["model", "dataset"]

PROGRESS_EVERY_S = 0.5
ETAG_TIMEOUT_S = 30.0
INFO_TIMEOUT_S = 60.0
_SECRETIVE = {401, 403}
_PASSING = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit. `sizes` maps every file to its bytes (None: unknown); `sha256` only large files."""

    commit: str
    sizes: dict[str, int | None]
    sha256: dict[str, str]
    licence: str | None


def look_up(source: Source, kind: RepositoryKind = "model") -> Repository:
    """The repository of `source` at the commit its revision stands for.

    Raises NotFound, Forbidden (gated or private) or Unavailable.
    """
    with _errors_explained(source):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint(), library_name="atoll")
        ask = api.model_info if kind == "model" else api.dataset_info
        info = ask(source.name, revision=source.version or None, files_metadata=True, timeout=INFO_TIMEOUT_S)
    if not info.sha:
        raise Unavailable(f"{endpoint()} does not say which commit {source} is")
    files = info.siblings or []
    sums = {f.rfilename: f.lfs.sha256 for f in files if f.lfs is not None and f.lfs.sha256}
    card = info.card_data
    licence = card.get("license") if card is not None else None
    return Repository(
        info.sha, {f.rfilename: f.size for f in files}, sums, licence if isinstance(licence, str) else None
    )


def download(
    source: Source,
    repository: Repository,
    wanted: list[str],
    cache: Path,
    progress: Progress,
    kind: RepositoryKind = "model",
) -> Path:
    """The folder that holds the files `wanted` at the repository's commit. Raises Unavailable and the like."""
    sizes = [repository.sizes.get(name) for name in wanted]
    total_bytes = sum(size for size in sizes if size is not None) if None not in sizes else None
    folder = cache / "hub"
    with _errors_explained(source), _growth_reported(folder, total_bytes, progress):
        from huggingface_hub import snapshot_download

        path = snapshot_download(
            source.name,
            repo_type=kind,
            revision=repository.commit,
            allow_patterns=[_literal(name) for name in wanted],
            cache_dir=folder,
            endpoint=endpoint(),
            etag_timeout=ETAG_TIMEOUT_S,
            library_name="atoll",
        )
    missing = [name for name in wanted if not (Path(path) / name).is_file()]
    if missing:
        raise NotFound(f"{source} at {repository.commit} did not deliver {', '.join(missing[:5])}")
    return Path(path)


def endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@contextmanager
def _errors_explained(source: Source) -> Iterator[None]:
    """Turn the hub library's errors into ours."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise Invalid(
            "hf: sources need the huggingface_hub package", field="source", hint="pip install 'atoll[train]'"
        ) from error
    try:
        yield
    except errors.GatedRepoError as error:
        raise Forbidden(
            f"{source} is gated", hint="accept its terms on the hub, then set HF_TOKEN", endpoint=endpoint()
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise _absent(source) from error
    except errors.HFValidationError as error:
        raise Invalid(f"{source}: {error}", field="source") from error
    except (errors.HfHubHTTPError, errors.HTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise _explained(source, error) from error


def _explained(source: Source, error: Exception) -> AtollError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in _SECRETIVE:
        return Forbidden(
            f"{endpoint()} refuses {source} with {status}", hint="set HF_TOKEN to a token that may read it"
        )
    if status == 404:
        return _absent(source)
    if status is not None and status < 500 and status not in _PASSING:
        return Invalid(f"{endpoint()} answers {status} for {source}: {error}", field="source")
    return Unavailable(
        f"cannot fetch {source} from {endpoint()}: {error}",
        hint="check the network; HF_ENDPOINT names another hub",
        retry_after_s=30.0,
    )


def _absent(source: Source) -> NotFound:
    return NotFound(
        f"{endpoint()} has no {source}", hint="check owner, name and revision; a private one needs HF_TOKEN"
    )


@contextmanager
def _growth_reported(folder: Path, total_bytes: int | None, progress: Progress) -> Iterator[None]:
    """Report how many bytes `folder` has grown by while the block runs."""
    before_bytes, is_done = _tree_bytes(folder), threading.Event()

    def watch() -> None:
        while not is_done.wait(PROGRESS_EVERY_S):
            progress(max(0, _tree_bytes(folder) - before_bytes), total_bytes)

    watcher = threading.Thread(target=watch, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()


def _tree_bytes(folder: Path) -> int:
    total_bytes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total_bytes += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total_bytes


def _literal(name: str) -> str:
    """`name` as an fnmatch pattern that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
