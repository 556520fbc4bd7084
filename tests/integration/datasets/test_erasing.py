"""`atoll data erase` from the command to the certificate, and what verifying it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.core.errors import Forbidden, NotFound
from atoll.data.archive import Stored
from atoll.data.engine.versions.rows import batches
from atoll.data.layout import members
from small_datasets import document

from .conftest import Library

BOB = "bob@example.org"


def texts_of(library: Library, reference: str) -> list[str]:
    digest = library.ready(reference).spec["manifest"]
    stored = Stored(library.centre.blobs, digest)
    found = members(stored.manifest)
    return [text for path, shard in found for b in batches(stored, path, shard) for text in b["text"].to_pylist()]


def test_an_erasure_is_asked_for_certified_and_verified(library: Library, clerk: None, tmp_path: Path) -> None:
    rows = [[document("a", f"write {BOB}"), document("b", "stays")]]
    before = library.add("mail", {"train": rows}).spec["manifest"]
    paper = tmp_path / "bob.json"
    said = library.command("erase", "--text", BOB, "--reason", "letter 7", "--certificate", str(paper), "--yes")
    assert "Certificate of erasure" in said and "mail.v1: 1 of train, 1 shards written anew" in said
    assert BOB not in said and BOB not in paper.read_text()
    assert texts_of(library, "mail.v1") == ["stays"] and not library.centre.blobs.exists(before)
    said = library.command("erase", "--verify", str(paper))
    assert "the platform agrees: 1 versions are as it says" in said
    said = library.command("erase", "--verify", str(paper), "--text", BOB.upper(), "--text", "eve@example.org")
    assert f"{BOB.upper()!r} is covered" in said and "'eve@example.org' is NOT covered" in said
    assert "'a' is NOT covered" in library.command("erase", "--verify", str(paper), "--document", "a")
    told = json.loads(paper.read_bytes())
    paper.write_text(json.dumps(told | {"reason": "other"}))
    assert "was changed" in library.command("erase", "--verify", str(paper), code=1)
    assert "nothing is named" in library.command("erase", "--reason", "x", code=1)


def test_what_cannot_be_certified_where_it_was_asked_is_not_erased(
    library: Library, clerk: None, tmp_path: Path
) -> None:
    carl = "carl@example.org"  # nobody else's erasure reaches him
    made = library.add("uncertified", {"train": [[document("a", f"write {carl}")]]})
    for paper in (tmp_path, tmp_path / "nowhere" / "carl.json"):
        library.command(
            "erase", "--text", carl, "--dataset", "uncertified", "--certificate", str(paper), "--yes", code=1
        )
    assert not [e for e in library.scope.find_all("Erasure") if e.spec["datasets"] == ["uncertified"]]
    assert library.ready(made.name).spec["manifest"] == made.spec["manifest"]


def test_a_second_erasure_does_not_make_the_first_certificate_wrong(
    library: Library, clerk: None, tmp_path: Path
) -> None:
    library.add("post", {"train": [[document("p", f"to {BOB} and zoe@example.org"), document("q", "zoe@example.org")]]})
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    library.command("erase", "--text", BOB, "--dataset", "post", "--certificate", str(one), "--yes")
    library.command("erase", "--text", "zoe@example.org", "--dataset", "post", "--certificate", str(two), "--yes")
    for paper in (one, two):
        assert "the platform agrees" in library.command("erase", "--verify", str(paper))
    with library.client("other") as client:
        assert client.datasets.verify(json.loads(one.read_bytes())) == ["it is of project 'default', this is 'other'"]


def test_erasing_is_for_owners_and_certificates_for_their_project(library: Library) -> None:
    match = {"match": {"texts": ["someone@example.org"]}}
    with library.client("default", library.key("default", "member")) as client, pytest.raises(Forbidden, match="owner"):
        client.put("Erasure", "mine", match)
    stranger = library.key("other", "owner")
    with library.client("default", stranger) as client, pytest.raises(Forbidden):
        client.datasets.certificate("mine")
    with library.client("other", stranger) as client, pytest.raises(NotFound):
        client.datasets.certificate("mine")


def test_what_is_to_be_erased_is_not_shown(library: Library, clerk: None) -> None:
    with library.client() as client:
        made = client.put("Erasure", "quiet", {"match": {"texts": ["secret@example.org"]}})
        assert "match" not in made.spec
        client.wait_for("Erasure", "quiet", {"succeeded"}, timeout_s=60)
