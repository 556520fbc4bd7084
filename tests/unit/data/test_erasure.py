"""An erasure from its request to its certificate: rows, questions, tables, files and blobs go, the rest stays."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.blobs import BlobStore
from atoll.core.clock import VirtualClock
from atoll.core.errors import Forbidden, IntegrityError, Invalid
from atoll.core.resources import Resource
from atoll.core.sealed import DataKey, SealedBlobs
from atoll.core.store import Create, MarkDeleting, SetStatus, Store
from atoll.data import certificate as certificates
from atoll.data.engine.versions.erase import erase
from atoll.data.erasure import ErasureController
from atoll.data.files import create_file
from atoll.data.layout import members
from atoll.data.manifest import Manifest, Split, open_split, read_manifest, write_manifest
from atoll.data.resources import ERASURE, IDENTIFIERS_MAX
from atoll.data.versions import make_version
from atoll.server import kinds
from small_datasets import Shelf, dataset, document, question, shard

assert kinds.DOMAINS
ANN = "ann@example.org"
KEY = DataKey(bytes(range(32)))
SPLITS = {
    "train": [
        [document("a", f"Write to {ANN.upper()} today."), document("b", "Nothing of her.")],
        [document("c", "Another page."), document("d", "One more.", "https://example.org/d")],
    ],
    "qa_train": [[question("qa", "a", "today"), question("qb", "b", "Nothing")], [question("qc", "c", "Another")]],
}


class Bureau(Shelf):
    """A shelf whose erasures are carried out: the engine runs in this process when its workload appears."""

    def __init__(self, store: Store, clock: VirtualClock, folder: Path) -> None:
        super().__init__(store, clock, folder, ErasureController(BlobStore(str(folder / "blobs"))))
        self.works = 0

    def work(self) -> None:
        """Run what was asked of the engine, and let it succeed."""
        for workload in self.scope.find_all("Workload"):
            if workload.phase == "pending" and "erase" in workload.spec["roles"][0]["command"][-1]:
                self.works += 1
                wanted = workload.spec["roles"][0]["input"]
                result = erase(wanted, self.blobs, self.folder / f"work-{self.works}", keys=[KEY])
                status = workload.status | {"phase": "succeeded", "result": json.loads(json.dumps(result))}
                self.scope.write([SetStatus(workload, status)])

    def erase(self, name: str = "e", **spec: Any) -> Resource:
        """An erasure, as far as it gets."""
        match = {k: spec.pop(k) for k in ("documents", "sources", "texts", "files") if k in spec}
        wanted = ERASURE.parse_spec({"match": match, **spec})
        self.scope.write([Create("Erasure", "p", name, wanted, {"phase": "pending"})])
        return self.go_on(name)

    def go_on(self, name: str = "e") -> Resource:
        for _ in range(6):
            self.settle(2)
            self.work()
        return self.get(name, "Erasure")

    def whole(self, name: str = "docs", project: str = "p", splits: Any = SPLITS, **facts: Any) -> Resource:
        manifest = dataset(self.blobs, self.folder, splits, **facts)
        made = make_version(self.scope, project, name, manifest)
        self.scope.write(made.writes)
        self.settle()
        return self.scope.get("DatasetVersion", made.version, project)

    def upload(self, name: str, data: bytes, filename: str = "x.txt", project: str = "p") -> str:
        digest = self.blobs.put_bytes(data).digest
        self.scope.write([create_file(project, name, filename, "fine-tune", digest=digest, size_bytes=len(data))])
        return digest

    def upload_sealed(self, name: str, data: bytes, filename: str = "x.txt", key: DataKey = KEY) -> str:
        made = SealedBlobs(self.blobs, [key]).put_stream([data], 1 << 20)
        told = {"digest": made.digest, "size_bytes": made.size_bytes, "sealed": True}
        self.scope.write([create_file("p", name, filename, "fine-tune", **told)])
        return made.digest

    def rows(self, version: str, split: str) -> list[str]:
        manifest = read_manifest(self.blobs, self.get(version, "DatasetVersion").spec["manifest"])
        return [row["id"] for row in open_split(self.blobs, manifest, split)]

    def certificate(self, erasure: Resource) -> dict[str, Any]:
        return certificates.opened(self.blobs.read(erasure.status["certificate"]))


@pytest.fixture
def bureau(sqlite_store: Store, clock: VirtualClock, tmp_path: Path) -> Bureau:
    return Bureau(sqlite_store, clock, tmp_path)


def test_a_person_leaves_every_version_and_all_made_from_her_documents(bureau: Bureau) -> None:
    first = bureau.whole()
    second = bureau.whole(splits=SPLITS | {"heldout": [[document("h", f"mail {ANN}")]]})
    old = {d.digest for v in (first, second) for _, d in members(read_manifest(bureau.blobs, v.spec["manifest"]))}
    done = bureau.erase(texts=[ANN], reason="asked by letter")
    assert done.phase == "succeeded", done.status
    for version in ("docs.v1", "docs.v2"):
        assert bureau.rows(version, "train") == ["b", "c", "d"]
        assert bureau.rows(version, "qa_train") == ["qb", "qc"]
    assert bureau.rows("docs.v2", "heldout") == []
    after = bureau.get("docs.v1", "DatasetVersion")
    assert after.phase == "ready" and after.spec["erasures"] == ["e"]
    assert after.status["counts"]["train"] == 3 and after.status["counts"]["documents_out"] == 3
    kept = {d.digest for _, d in members(read_manifest(bureau.blobs, after.spec["manifest"]))}
    assert len(kept & old) == 2, "shards without a match are not written anew"
    gone = (old - kept) | {first.spec["manifest"], second.spec["manifest"]}
    assert not any(bureau.blobs.exists(digest) for digest in gone)


def test_the_certificate_tells_and_proves_what_was_done_without_naming_anybody(bureau: Bureau) -> None:
    version = bureau.whole()
    run = {"base": "m", "dataset": "docs", "output": "m"}
    bureau.create("TrainingRun", "tune", run, phase="succeeded", dataset_version="docs.v1", observed_generation=1)
    tuned = {"model": "m", "training_run": "tune", "base": "b"}
    bureau.create("ModelVersion", "m.v2", tuned, phase="ready", observed_generation=1)
    labels = [{"dataset": "docs", "column": "label", "good": ["good"]}]
    bureau.create("QualityModel", "edu", {"labels": labels}, phase="ready", datasets=["docs.v1"], observed_generation=1)
    told = bureau.certificate(bureau.erase(texts=[ANN], documents=["c"], reason="asked by letter"))
    after = bureau.get("docs.v1", "DatasetVersion").spec["manifest"]
    (done,) = told["versions"]
    assert (done["name"], done["before"], done["after"]) == ("docs.v1", version.spec["manifest"], after)
    assert done["removed"] == {"train": 2, "qa_train": 2} and done["shards_rewritten"] == 4
    learned = {"TrainingRun": ["tune"], "ModelVersion": ["m.v2"], "QualityModel": ["edu"]}
    assert told["affected"] == learned
    assert told["blobs"] == {"deleted": 5, "kept": 0} and told["reason"] == "asked by letter"
    assert told["scope"]["rows"] == 7 and told["scope"]["versions"] == {"docs.v1": after}
    assert told["not_reached"] == list(certificates.NOT_REACHED) and ANN not in json.dumps(told)
    assert certificates.covers(told, ANN.upper()) and not certificates.covers(told, "bob@example.org")
    assert "2 of train, 2 of qa_train" in "\n".join(certificates.lines(told))


def test_what_was_named_is_forgotten(bureau: Bureau) -> None:
    bureau.whole()
    done = bureau.erase(texts=[ANN])
    assert done.spec["is_forgotten"] and done.spec["match"]["texts"] == []
    assert done.status["observed_generation"] == done.generation
    bureau.settle(5)
    for kind in ("Workload", "Erasure", "DatasetVersion", "Dataset"):
        assert all(ANN not in json.dumps([r.spec, r.status]) for r in bureau.scope.find_all(kind))
    assert not bureau.scope.find_all("Workload")


def test_a_changed_certificate_is_refused(bureau: Bureau) -> None:
    bureau.whole()
    told = bureau.certificate(bureau.erase(texts=[ANN]))
    changed = told | {"reason": "another"}
    with pytest.raises(IntegrityError, match="was changed"):
        certificates.opened(json.dumps(changed).encode())
    for data in (b"", b"[]", b'{"format": "x"}'):
        with pytest.raises(Invalid, match="no certificate"):
            certificates.opened(data)
    with pytest.raises(Invalid, match="lacks erasure, versions"):
        forged = {name: value for name, value in told.items() if name not in ("erasure", "versions")}
        certificates.opened(json.dumps(certificates.sealed(forged)).encode())


def test_documents_sources_and_prefixes_are_meant_exactly(bureau: Bureau) -> None:
    bureau.whole()
    bureau.erase("one", documents=["c"])
    assert bureau.rows("docs.v1", "train") == ["a", "b", "d"] and bureau.rows("docs.v1", "qa_train") == ["qa", "qb"]
    bureau.erase("two", sources=["https://example.org/*"])
    assert bureau.rows("docs.v1", "train") == ["a", "b"]
    bureau.erase("three", sources=["b"])
    assert bureau.rows("docs.v1", "train") == ["a"]
    assert bureau.get("docs.v1", "DatasetVersion").spec["erasures"] == ["one", "two", "three"]


def test_what_was_erased_does_not_come_back_as_it_was(bureau: Bureau) -> None:
    old = bureau.blobs.read(bureau.whole().spec["manifest"])
    bureau.erase(texts=[ANN])
    with pytest.raises(Forbidden, match="erasure 'e' removed documents of this version"):
        make_version(bureau.scope, "p", "docs", bureau.blobs.put_bytes(old).digest)
    assert make_version(bureau.scope, "q", "docs", bureau.blobs.put_bytes(old).digest).writes


def test_without_a_match_nothing_is_written_and_that_is_certified(bureau: Bureau) -> None:
    version = bureau.whole()
    told = bureau.certificate(bureau.erase(texts=["nobody@example.org"]))
    assert told["versions"] == [] and told["blobs"] == {"deleted": 0, "kept": 0}
    assert bureau.get("docs.v1", "DatasetVersion").version == version.version


def test_an_empty_shard_is_no_reason_to_write_a_version_anew(bureau: Bureau) -> None:
    before = bureau.whole(splits={"train": [[document("a", "page")], []]})
    assert bureau.erase(texts=["nobody@example.org"]).phase == "succeeded"
    assert bureau.get("docs.v1", "DatasetVersion").spec["manifest"] == before.spec["manifest"]


def test_only_the_datasets_named_are_searched(bureau: Bureau) -> None:
    bureau.whole("one")
    bureau.whole("two", splits={"train": [[document("z", ANN)]]})
    bureau.erase(texts=[ANN], datasets=["one"])
    assert bureau.rows("one.v1", "train") == ["b", "c", "d"] and bureau.rows("two.v1", "train") == ["z"]


def test_another_project_keeps_its_own_and_the_blobs_both_have(bureau: Bureau) -> None:
    bureau.whole()
    theirs = bureau.whole(project="q")
    told = bureau.certificate(bureau.erase(texts=[ANN]))
    assert told["blobs"] == {"deleted": 0, "kept": 3}
    assert bureau.scope.get("DatasetVersion", "docs.v1", "q").spec == theirs.spec
    manifest = read_manifest(bureau.blobs, theirs.spec["manifest"])
    assert all(bureau.blobs.exists(d.digest) for _, d in members(manifest))


def test_files_that_are_named_or_hold_a_text_go_with_their_rows(bureau: Bureau) -> None:
    named = bureau.upload("file-1", b"anything")
    holding = bureau.upload("file-2", b'{"text": "to ANN@example.org"}')
    other = bureau.upload("file-3", b"nothing of her")
    theirs = bureau.upload("file-4", f"mail {ANN}".encode(), project="q")
    sources = [{"kind": "upload", "digest": named, "name": "s0"}, {"kind": "upload", "digest": other, "name": "s1"}]
    splits = {"train": [[document("s0/x", "one", "s0:x"), document("s1/y", "two", "s1:y")]]}
    bureau.whole(splits=splits, sources=sources)
    told = bureau.certificate(bureau.erase(files=["file-1"], texts=[ANN]))
    assert told["files_removed"] == ["file-1", "file-2"] and told["scope"]["files"] == 3
    assert bureau.rows("docs.v1", "train") == ["s1/y"]
    assert [bureau.blobs.exists(d) for d in (named, holding, other, theirs)] == [False, False, True, True]
    assert [f.name for f in bureau.scope.find_all("File")] == ["file-3", "file-4"]


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return packed.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    packed = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), packed, compression="snappy")
    return packed.getvalue()


HERS = json.dumps({"text": "of others", "author": ANN}).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl.gz", gzip.compress(HERS)),
        ("rows.bin", gzip.compress(HERS)),
        ("page.html.gz", gzip.compress(f"<html><meta name=author content='{ANN}'><p>Hello</p></html>".encode())),
        ("rows.zip", zipped(rows_jsonl=HERS)),
        ("notes.zip", zipped(notes_log=HERS)),
        ("inside.zip", zipped(rows_gz=gzip.compress(HERS))),
        ("rows.parquet", parquet([{"text": "of others", "author": [{"mail": ANN}]}])),
        ("code.tar.gz", gzip.compress(tarred("a.py", HERS))),
        ("code.tar", tarred("a.py.gz", gzip.compress(HERS))),
        ("named.tar", tarred(f"{ANN}.txt", b"of others")),
        ("people.csv", f"ORCID,mail\n7,{ANN}\n".encode()),
        ("notes.txt", f"BZhang wrote to {ANN}".encode()),
        (f"{ANN}.txt", b"of others"),
    ],
)
def test_files_are_searched_by_name_and_wherever_they_hold_a_text(bureau: Bureau, name: str, data: bytes) -> None:
    bureau.upload("file-1", data, name)
    done = bureau.erase(texts=[ANN])
    assert (done.status["files_removed"], done.status["files_not_searched"]) == (["file-1"], [])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("nested.zip", zipped(inner_zip=zipped(a_txt=HERS))),
        ("nested.tar", tarred("rows.parquet", parquet([{"text": ANN}]))),
        ("broken.jsonl.gz", gzip.compress(HERS * 999)[:-30]),
        ("broken.parquet", b"PAR1" + HERS[:2]),
        ("rows.feather", b"ARROW1\0\0 and compressed batches"),
    ],
)
def test_a_file_nobody_can_search_inside_is_named(bureau: Bureau, name: str, data: bytes) -> None:
    bureau.upload("file-1", data, name)
    done = bureau.erase(texts=["nowhere@example.org"])
    assert (done.status["files_removed"], done.status["files_not_searched"]) == ([], ["file-1"])


def test_sealed_files_are_searched_and_one_that_does_not_open_is_named(bureau: Bureau) -> None:
    holding = bureau.upload_sealed("file-1", f"mail {ANN}".encode())
    packed = bureau.upload_sealed("file-2", gzip.compress(json.dumps({"text": f"to {ANN}"}).encode()), "x.jsonl.gz")
    bureau.upload_sealed("file-3", b"nothing of her")
    bureau.upload_sealed("file-4", b"of a key that is lost", key=DataKey(bytes(32)))
    told = bureau.certificate(bureau.erase(texts=[ANN]))
    assert told["files_removed"] == ["file-1", "file-2"] and told["scope"]["files_not_searched"] == ["file-4"]
    assert not bureau.blobs.exists(holding) and not bureau.blobs.exists(packed)


@pytest.mark.parametrize("written", ["MÜLLER", "müller", "Mu\u0308ller", "MU\u0308LLER"])
def test_a_name_is_found_however_its_accents_and_capitals_are_written(bureau: Bureau, written: str) -> None:
    bureau.upload("file-1", f"by {written}".encode())
    bureau.upload("file-2", f"by {written}".encode("utf-16"))
    bureau.whole(splits={"train": [[document("a", f"by {written}"), document("b", "by Muller")]]})
    assert bureau.erase(texts=["Müller"]).status["files_removed"] == ["file-1", "file-2"]
    assert bureau.rows("docs.v1", "train") == ["b"]


def test_rows_of_a_file_that_cannot_be_told_apart_all_go(bureau: Bureau) -> None:
    one, two = bureau.upload("file-1", b"1"), bureau.upload("file-2", b"2")
    bureau.whole("solo", sources=[{"kind": "file", "digest": one}])
    bureau.whole("both", sources=[{"kind": "upload", "digest": one}, {"kind": "upload", "digest": two}])
    chats = {
        "qa_train": [[question("train-1-1", "train-1-1", "x")]],
        "qa_heldout": [[question("heldout-1-1", "x", "y")]],
    }
    bureau.whole("chats", splits=chats, sources=[{"kind": "file", "digest": one}, {"kind": "file", "digest": two}])
    bureau.erase(files=["file-1"])
    assert bureau.rows("solo.v1", "train") == bureau.rows("both.v1", "train") == []
    assert bureau.rows("chats.v1", "qa_train") == [] and bureau.rows("chats.v1", "qa_heldout") == ["heldout-1-1"]


def test_tables_packed_rows_and_samples_are_cleaned_too(bureau: Bureau) -> None:
    manifest = read_manifest(bureau.blobs, dataset(bureau.blobs, bureau.folder, SPLITS))
    packed = [{"tokens": [1, 2], "documents": ["a", "b"]}, {"tokens": [3], "documents": ["c"]}]
    rejected = [{"id": "r", "text": f"spam by {ANN}", "reason": "spam"}, {"id": "s", "text": "ok", "reason": "x"}]
    notes = [{"id": name, "characters": 3} for name in "abcdrs"]
    made = {n: Split((shard(bureau.blobs, bureau.folder, rows),), len(rows)) for n, rows in (("packed", packed),)}
    tables = {
        name: Split((shard(bureau.blobs, bureau.folder, rows),), len(rows))
        for name, rows in (("rejected", rejected), ("notes", notes))
    }
    funnel = [{"rule": "spam", "dropped": 2, "samples": [f"r: spam by {ANN}", "s: ok"]}]
    whole = Manifest(
        {**manifest.splits, **made}, manifest.counts, funnel, {"words": [ANN, "x"]}, "MIT", [], tables=tables
    )
    made_version = make_version(bureau.scope, "p", "docs", write_manifest(bureau.blobs, whole))
    bureau.scope.write(made_version.writes)
    bureau.settle()
    bureau.erase(texts=[ANN])
    after = read_manifest(bureau.blobs, bureau.get("docs.v1", "DatasetVersion").spec["manifest"])
    assert [row["documents"] for row in open_split(bureau.blobs, after, "packed")] == [["c"]]
    assert [row["id"] for row in open_split(bureau.blobs, after, "rejected")] == ["s"]
    assert [row["id"] for row in open_split(bureau.blobs, after, "notes")] == ["b", "c", "d", "s"]
    assert after.funnel[0]["samples"] == ["(erased)", "s: ok"] and after.recipe == {"words": ["(erased)", "x"]}
    assert ANN not in after.encode().decode()


def derive(bureau: Bureau, name: str, rows: list[dict[str, Any]], parents: list[Resource], **facts: Any) -> Resource:
    """A version made from others; its split `train` are `rows`."""
    manifest = dataset(bureau.blobs, bureau.folder, {"train": [rows]}, **facts)
    made = make_version(bureau.scope, "p", name, manifest, parents=[parent.name for parent in parents])
    bureau.scope.write(made.writes)
    bureau.settle()
    return bureau.get(made.version, "DatasetVersion")


def from_dataset(version: Resource, name: str) -> dict[str, Any]:
    return {"kind": "dataset", "name": name, "reference": version.spec["manifest"]}


def test_a_document_leaves_what_was_made_from_its_version_by_the_name_it_has_there(bureau: Bureau) -> None:
    docs, other = bureau.whole(), bureau.whole("other", splits={"train": [[document("a", "of others")]]})
    rows = [document(name, "masked") for name in ("s0/a", "s0/b", "s1/a", "a")]
    mixed = derive(bureau, "mixed", rows, [docs, other], sources=[from_dataset(docs, "s0"), from_dataset(other, "s1")])
    funnel = [{"rule": "r", "dropped": 2, "samples": ["s0/a: masked", "s1/a: of others"]}]
    rows = [document(name, "masked twice") for name in ("s0/a", "s0/b")]
    derive(bureau, "again", rows, [mixed], sources=[from_dataset(mixed, "s0")], funnel=funnel)
    made = [question("q1", "a", "x"), question("q2", "b", "y")]
    derive(bureau, "asked", made, [docs], sources=[{"kind": "synthesis", "manifest": docs.spec["manifest"]}])
    done = bureau.erase(texts=[ANN])
    assert done.phase == "succeeded", done.status
    assert bureau.rows("mixed.v1", "train") == ["s0/b", "s1/a", "a"]
    assert bureau.rows("again.v1", "train") == ["s0/b"]
    assert bureau.rows("asked.v1", "train") == ["q2"] and bureau.rows("other.v1", "train") == ["a"]
    again = read_manifest(bureau.blobs, bureau.get("again.v1", "DatasetVersion").spec["manifest"])
    assert again.funnel[0]["samples"] == ["(erased)", "s1/a: of others"]
    assert {v["name"] for v in bureau.certificate(done)["versions"]} == {"docs.v1", "mixed.v1", "again.v1", "asked.v1"}


def test_what_was_made_before_an_erasure_is_known_to_come_from_what_was_erased_from(bureau: Bureau) -> None:
    theirs = [document(name, "of others") for name in "ab"]
    docs, other = bureau.whole(), bureau.whole("other", splits={"train": [theirs]})
    rows = [document(name, "masked") for name in ("s0/a", "s0/b", "s0/c", "s1/a", "s1/b")]
    sources = [from_dataset(docs, "s0"), from_dataset(other, "s1")]
    derive(bureau, "mixed", rows, [docs, other], sources=sources)
    bureau.erase("first", documents=["a"], datasets=["docs", "mixed"])
    bureau.erase("second", documents=["b"], datasets=["docs", "mixed"])
    assert bureau.rows("docs.v1", "train") == ["c", "d"] and bureau.rows("other.v1", "train") == ["a", "b"]
    assert bureau.rows("mixed.v1", "train") == ["s0/c", "s1/a", "s1/b"]


def test_what_is_made_meanwhile_of_what_was_replaced_loses_the_document_too(bureau: Bureau) -> None:
    docs = bureau.whole()
    bureau.scope.write([Create("Erasure", "p", "e", ERASURE.parse_spec({"match": {"texts": [ANN]}}), {})])
    bureau.settle(2)
    bureau.work()
    derive(bureau, "late", [document("a", "masked"), document("b", "x")], [docs], sources=[from_dataset(docs, "s0")])
    done = bureau.go_on()
    assert done.phase == "succeeded" and bureau.works == 2
    assert bureau.rows("late.v1", "train") == ["b"]


def test_what_bears_a_text_in_its_name_or_its_notes_is_named(bureau: Bureau) -> None:
    key = {"description": f"laptop of {ANN}", "sha256": "0" * 64}
    bureau.create("ApiKey", "key-1", key)
    bureau.create("Dataset", "ann-letters", {})
    source = {"kind": "folder", "path": "/x"}
    bureau.create("CurationRun", "of-ann-letters", {"dataset": "d", "sources": [source]}, phase="succeeded")
    done = bureau.erase(texts=[ANN, "ann-letters"])
    assert done.status["named_elsewhere"] == ["ApiKey/key-1", "Dataset/ann-letters"]
    assert done.status["runs_removed"] == ["CurationRun/of-ann-letters"]


def test_the_record_of_a_run_with_a_sample_of_a_document_goes_and_others_stay(bureau: Bureau) -> None:
    bureau.whole(splits={"train": [[document("a: b", "hers"), document("c", "of others")]]})
    source = {"kind": "folder", "path": "/x"}
    for name, of, sample in (("hers", "docs", "a: b: hers"), ("same", "docs", "a: of others"), ("far", "far", "c: x")):
        funnel = [{"rule": "r", "dropped": 1, "samples": [sample]}]
        bureau.create("CurationRun", name, {"dataset": of, "sources": [source]}, phase="succeeded", funnel=funnel)
    done = bureau.erase(sources=["a: b"], datasets=["docs"])
    assert done.phase == "succeeded", done.status
    assert done.status["runs_removed"] == ["CurationRun/hers"]


def test_versions_that_come_meanwhile_are_searched_too(bureau: Bureau) -> None:
    bureau.whole()
    bureau.scope.write([Create("Erasure", "p", "e", ERASURE.parse_spec({"match": {"texts": [ANN]}}), {})])
    bureau.settle(2)
    late = bureau.whole("late", splits={"train": [[document("z", ANN), document("y", "stays")]]})
    done = bureau.go_on()
    assert done.phase == "succeeded" and bureau.works == 2
    assert bureau.rows("late.v1", "train") == ["y"] and bureau.rows("docs.v1", "train") == ["b", "c", "d"]
    told = bureau.certificate(done)
    assert sorted(v["name"] for v in told["versions"]) == ["docs.v1", "late.v1"]
    assert not bureau.blobs.exists(late.spec["manifest"])


def test_erasures_of_a_project_take_turns_so_that_none_keeps_what_another_removed(bureau: Bureau) -> None:
    bureau.whole(splits={"train": [[document("a", ANN), document("b", "bob@example.org"), document("c", "stays")]]})
    for name, text in (("first", ANN), ("second", "bob@example.org")):
        wanted = ERASURE.parse_spec({"match": {"texts": [text]}})
        bureau.scope.write([Create("Erasure", "p", name, wanted, {"phase": "pending"})])
        bureau.clock.advance(1)
    bureau.settle(2)
    assert bureau.get("second", "Erasure").status["reason"] == "waits for Erasure/p/first, which goes first"
    done = [bureau.go_on(name) for name in ("first", "second")]
    assert [erasure.phase for erasure in done] == ["succeeded", "succeeded"]
    first, second = (bureau.certificate(erasure)["versions"] for erasure in done)
    assert len(first) == len(second) == 1 and first[0]["after"] == second[0]["before"]
    assert bureau.rows("docs.v1", "train") == ["c"] and bureau.works == 2
    shards = [data for data in map(bureau.blobs.read, bureau.blobs.digests()) if data.startswith(b"PAR1")]
    assert [row["id"] for data in shards for row in pq.read_table(io.BytesIO(data)).to_pylist()] == ["c"]


def test_rows_of_a_file_that_is_gone_by_then_leave_versions_that_come_meanwhile(bureau: Bureau) -> None:
    digest = bureau.upload("file-1", b"anything")
    wanted = ERASURE.parse_spec({"match": {"files": ["file-1"]}})
    bureau.scope.write([Create("Erasure", "p", "e", wanted, {})])
    bureau.settle(2)
    bureau.work()
    bureau.whole("late", sources=[{"kind": "upload", "digest": digest}])
    done = bureau.go_on()
    assert done.phase == "succeeded" and bureau.works == 2, done.status
    assert bureau.rows("late.v1", "train") == [] and not bureau.blobs.exists(digest)


def test_who_still_reads_the_old_versions_is_waited_for(bureau: Bureau) -> None:
    version = bureau.whole()
    role = {"command": ["x"], "input": {"dataset": version.spec["manifest"]}}
    reader = bureau.create("Workload", "reader", {"roles": [role]}, phase="running")
    waiting = bureau.erase(texts=[ANN])
    assert waiting.phase == "running" and "waits for Workload/p/reader" in waiting.status["reason"]
    assert bureau.blobs.exists(version.spec["manifest"]) and bureau.rows("docs.v1", "train") == ["b", "c", "d"]
    bureau.scope.write([MarkDeleting(reader)])
    assert bureau.go_on().phase == "succeeded"
    assert not bureau.blobs.exists(version.spec["manifest"])


def test_what_still_reads_a_file_that_is_erased_is_waited_for_until_it_told_what_it_made(bureau: Bureau) -> None:
    digest = bureau.upload("file-1", ANN.encode())
    source = {"kind": "upload", "digest": digest}
    run = bureau.create("CurationRun", "mix", {"dataset": "late", "sources": [source]}, phase="running")
    role = {"command": ["x"], "input": {"sources": [source]}}
    workload = Create("Workload", "p", "w", WORKLOAD.parse_spec({"roles": [role]}), {"phase": "running"}, owner=run.uid)
    bureau.scope.write([workload])
    waiting = bureau.erase(texts=[ANN])
    assert "waits for CurationRun/p/mix" in waiting.status["reason"], waiting.status
    bureau.scope.write([SetStatus(bureau.get("w", "Workload"), {"phase": "succeeded"})])
    assert bureau.go_on().phase == "running"
    bureau.whole("late", splits={"train": [[document("a", ANN), document("b", "stays")]]})
    bureau.scope.write([SetStatus(bureau.get("mix", "CurationRun"), {"phase": "succeeded"})])
    done = bureau.go_on()
    assert done.phase == "succeeded" and bureau.rows("late.v1", "train") == ["b"]
    assert bureau.certificate(done)["scope"]["files"] == 1


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"texts": ["a@b"]},
        {"texts": ["  "]},
        {"texts": ["a word and " * 1_000]},
        {"sources": ["*"]},
        {"documents": [str(n) for n in range(600)]},
    ],
)
def test_matches_that_mean_nothing_or_everything_are_refused(match: dict[str, Any]) -> None:
    assert IDENTIFIERS_MAX < 600
    with pytest.raises(Invalid, match=r"match"):
        ERASURE.parse_spec({"match": match})


def test_a_reason_that_names_who_is_to_be_forgotten_is_refused() -> None:
    with pytest.raises(Invalid, match="would stay in the certificate"):
        ERASURE.parse_spec({"match": {"texts": [ANN]}, "reason": f"request of {ANN.upper()}"})


@pytest.mark.parametrize(
    ("spec", "words"),
    [({"files": ["file-none"]}, "no file 'file-none'"), ({"texts": [ANN], "datasets": ["dcos"]}, "no dataset 'dcos'")],
)
def test_a_file_or_dataset_that_is_not_there_fails_the_erasure(bureau: Bureau, spec: Any, words: str) -> None:
    failed = bureau.erase(**spec)
    assert failed.phase == "failed" and words in failed.status["reason"]


def test_an_erasure_never_changes() -> None:
    old = ERASURE.parse_spec({"match": {"texts": [ANN]}})
    with pytest.raises(Forbidden, match="never changes"):
        ERASURE.guard(None, "p", old | {"reason": "x"}, old)  # type: ignore[arg-type]
