"""Fetching: what a plan names in a blob store becomes files on this machine, and the plan speaks of paths.

Uploads and datasets are sources; quality models, word lists, evaluation sets, tokenizers and datasets that are known
already are blobs, too. Without a store (a curation without a server) only paths are known, and packages and hubs
(`elsewhere`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.sealed import DataKey
from atoll.data.engine.compose.tokenizer import check_tokenizer
from atoll.data.engine.curate.known import Known, known_in, known_of
from atoll.data.engine.curate.plan import Plan, Quality, Source, Words
from atoll.data.engine.dedup.embedder import check_embedder
from atoll.data.engine.read import patterns_of
from atoll.data.layout import MANIFEST, members, path_of
from atoll.data.manifest import Manifest, decode_manifest, read_manifest
from atoll.governance.uploads import Uploads

Report = Callable[..., None]

DOCUMENT_SPLITS = ("train", "heldout")
DIGEST = "sha256:"
_STARTS = (
    *((b"PAR1", ".parquet"), (b"PK\x03\x04", ".zip"), (b"%PDF", ".pdf"), (b"\x1f\x8b", ".jsonl.gz")),
    *((b"\x28\xb5\x2f\xfd", ".jsonl.zst"), (b"{", ".jsonl"), (b"[", ".json"), (b"WARC/", ".warc")),
    *((b"<!DOCTYPE", ".html"), (b"<html", ".html")),
)
"""How files of a format begin, for uploads whose name is not known."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A plan that speaks of paths; files by the name of their source; manifest digests of dataset sources; datasets
    whose documents are not new."""

    plan: Plan
    files: dict[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    known: tuple[Known, ...] = ()


@dataclass(frozen=True, slots=True)
class Sealed:
    """Digests of the uploads that are sealed, and the keys that open them."""

    digests: Collection[str] = ()
    keys: Sequence[DataKey] = ()

    def fetch(self, store: BlobStore, digest: str, path: Path) -> Path:
        """The plain bytes of an upload, or of another blob, as a file at `path`."""
        return Uploads(store, self.keys).fetch(digest, path, is_sealed=digest in self.digests)


NOTHING_SEALED = Sealed()


@dataclass(frozen=True, slots=True)
class Told:
    """What the platform says of a run besides its plan.

    names: what uploads are called, by digest. known: manifests of the versions whose documents are not new, by their
    names. tokenizer: digests of the files of a model's tokenizer, by their names. door, project: where a deployment is
    asked, and for whom.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    sealed: Sealed = NOTHING_SEALED
    known: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Mapping[str, str] = field(default_factory=dict)
    door: str = ""
    project: str = ""


NOTHING_TOLD = Told()


def fetched(
    plan: Plan,
    store: BlobStore | None,
    folder: Path,
    told: Told = NOTHING_TOLD,
    report: Report = lambda *args, **more: None,
) -> Inputs:
    """Everything the plan names, in `folder`; without a store only what is told by paths.

    Invalid for a source that cannot be had here; NotFound for a blob that is not in the store, IntegrityError for a
    sealed one that does not open. Sources of kind package and hub say in the plan what they stood for.
    """
    files: dict[str, Sequence[tuple[str, str]]] = {}
    parents: list[str] = []
    sources = list(plan.sources)
    patterns = patterns_of(plan.recipe.get("preset", "documents"))
    _check_files(plan)
    found = _with_models(plan, store, folder, told)
    known = _known(plan, store, folder, told.known)
    for index, source in enumerate(plan.sources):
        where = f"sources[{index}]"
        if source.kind == "upload":
            files[source.name] = [_upload(source, _needed(store, where), folder, told)]
        elif source.kind == "dataset":
            files[source.name] = list(_dataset(source, store, folder, where))
            parents += [source.reference] if source.reference.startswith(DIGEST) else []
        elif source.kind in ("package", "hub"):
            from atoll.data.engine.curate.elsewhere import obtained  # it brings clients that files do not need

            wanted = source.patterns or patterns
            sources[index], files[source.name] = obtained(source, folder, wanted, where, report)
    digests = None if plan.known is None else tuple(item.digest for item in known)
    found = replace(found, sources=tuple(sources), known=digests)
    return Inputs(_with_paths(found, store, folder, told.sealed), files, tuple(parents), known)


def _check_files(plan: Plan) -> None:
    """Every file the recipe names by its path is there: said before anything is read."""
    named = [(f"quality[{number}].model", item.model) for number, item in enumerate(plan.quality)]
    named += [(f"words[{number}].path", item.path) for number, item in enumerate(plan.words)]
    sets = plan.decontaminate.sets if plan.decontaminate else ()
    named += [(f"decontaminate.sets[{number}]", name) for number, name in enumerate(sets)]
    for where, name in named:
        if name and not name.startswith(DIGEST) and not Path(name).exists():
            hint = "the path of a file on the machine the run is on"
            raise Invalid(f"recipe.{where}: there is no file {name!r}", field=f"recipe.{where}", hint=hint)


def _with_models(plan: Plan, store: BlobStore | None, folder: Path, told: Told) -> Plan:
    """The plan with its tokenizer here and its embedder known to answer: said before anything is read."""
    pack, dedup = plan.pack, plan.dedup
    if pack is not None and pack.model:
        pack = replace(pack, tokenizer=_tokenizer(pack.model, store, folder / "tokenizer", told.tokenizer))
    if pack is not None:
        check_tokenizer(pack.tokenizer)
    if dedup.semantic is not None:
        semantic = replace(dedup.semantic, door=told.door, project=told.project)
        check_embedder(semantic)
        dedup = replace(dedup, semantic=semantic)
    return replace(plan, pack=pack, dedup=dedup)


def _tokenizer(model: str, store: BlobStore | None, folder: Path, files: Mapping[str, str]) -> str:
    """The folder with the files of a model's tokenizer."""
    if store is None or not files:
        hint = "give a folder with a tokenizer.json, or `bytes`, as `tokenizer`"
        raise Invalid(f"model {model!r}: models are known to the platform alone", field="recipe.pack.model", hint=hint)
    for name, digest in files.items():
        store.fetch(digest, folder / name)
    return str(folder)


def _known(plan: Plan, store: BlobStore | None, folder: Path, versions: Mapping[str, str]) -> tuple[Known, ...]:
    """The datasets whose documents are not new: versions in the store, or folders as curation leaves them."""
    if plan.known is None:
        return ()
    if store is None:
        return tuple(known_in(Path(reference)) for reference in plan.known)
    return tuple(known_of(store, name, digest, folder / "known") for name, digest in versions.items())


def _with_paths(plan: Plan, store: BlobStore | None, folder: Path, sealed: Sealed) -> Plan:
    """The plan with the files its parts need."""

    def path_of_blob(reference: str, what: str) -> str:
        if not reference.startswith(DIGEST):
            return reference
        return str(sealed.fetch(_needed(store, what), reference, folder / reference.replace(":", "-")))

    quality = tuple(Quality(item.name, path_of_blob(item.model, "recipe.quality")) for item in plan.quality)
    words = tuple(_words(item, path_of_blob(item.digest, "recipe.words")) for item in plan.words)
    decontaminate = plan.decontaminate
    if decontaminate is not None:
        sets = tuple(_evaluation(name, store, folder) for name in decontaminate.sets)
        decontaminate = replace(decontaminate, sets=sets)
    return replace(plan, quality=quality, words=words, decontaminate=decontaminate)


def _words(words: Words, path: str) -> Words:
    return replace(words, path=path, digest="") if path else words


def _evaluation(reference: str, store: BlobStore | None, folder: Path) -> str:
    """The file of an evaluation set, or the folder with the shards of a dataset."""
    if not reference.startswith(DIGEST):
        return reference
    found = _needed(store, "recipe.decontaminate.sets")
    manifest = read_manifest(found, reference)
    place = folder / "sets" / reference.replace(":", "-")
    for name in manifest.splits:
        for _ in _shards(found, manifest, name, place):
            pass
    return str(place)


def _upload(source: Source, store: BlobStore, folder: Path, told: Told) -> tuple[str, str]:
    path = told.sealed.fetch(store, source.digest, folder / source.digest.replace(":", "-"))
    return told.names.get(source.digest) or f"upload{_suffix(path)}", str(path)


def _suffix(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16).lstrip(b"\xef\xbb\xbf \r\n\t")
    return next((suffix for magic, suffix in _STARTS if start.startswith(magic)), ".txt")


def _dataset(source: Source, store: BlobStore | None, folder: Path, where: str) -> Iterator[tuple[str, str]]:
    """The documents of a dataset: a digest in the store, or a folder as curation leaves it."""
    if source.reference.startswith(DIGEST):
        found = _needed(store, where)
        manifest = read_manifest(found, source.reference)
        for name in DOCUMENT_SPLITS:
            yield from _shards(found, manifest, name, folder / source.reference.replace(":", "-"))
        return
    path = Path(source.reference) / MANIFEST
    if not path.is_file():
        hint = "a folder that `atoll data curate` made; versions of datasets are known to the platform alone"
        raise Invalid(f"{source.reference} is not a dataset", field=f"{where}.reference", hint=hint)
    manifest = decode_manifest(path.read_bytes())
    for name, _ in members(manifest):
        if name.partition("/")[0] in DOCUMENT_SPLITS:
            yield name, str(path.parent / name)


def _shards(store: BlobStore, manifest: Manifest, split: str, folder: Path) -> Iterator[tuple[str, str]]:
    for number, shard in enumerate(manifest.splits[split].shards if split in manifest.splits else ()):
        name = path_of(split, number)
        yield name, str(store.fetch(shard.digest, folder / name))


def _needed(store: BlobStore | None, where: str) -> BlobStore:
    if store is None:
        raise Invalid("there is no blob store without a platform", field=where, hint="give a path")
    return store
