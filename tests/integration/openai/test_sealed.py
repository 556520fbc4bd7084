"""What reads uploads reads sealed ones: imports, curations; what people run themselves is not given the key."""

from __future__ import annotations

import json

import openai

from running import Platform, files_of

MARK = "a sentence that lies nowhere in clear"
ROWS = [
    {"id": f"r{n}", "text": f"{MARK}, number {n}: " + " ".join(f"word{n * k}" for k in range(60))} for n in range(12)
]


def test_datasets_are_made_of_a_sealed_file_and_it_lies_nowhere_in_clear(door: openai.OpenAI, up: Platform) -> None:
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    name = door.files.create(file=("rows.jsonl", data), purpose="user_data").id
    with up.client() as client:
        digest = client.get("File", name).spec["digest"]
        client.put("DatasetImport", "taken", {"dataset": "taken", "uploads": [name]})
        sources = [{"kind": "upload", "digest": digest}]
        client.put("CurationRun", "curated", {"dataset": "curated", "sources": sources, "cpu": 0.25})
        imported = up.reaches("DatasetImport", "taken", "succeeded", limit_s=120)
        curated = up.reaches("CurationRun", "curated", "succeeded", limit_s=120)
    assert imported.status["counts"]["train"] == len(ROWS)
    assert curated.status["counts"]["documents_in"] == len(ROWS)
    line = data.splitlines()[0]
    holding = [line in found for _, found in files_of(up.home / "blobs")]
    assert holding and not any(holding)


def test_examples_named_by_the_digest_of_a_sealed_file_are_taken(door: openai.OpenAI, up: Platform) -> None:
    data = b"".join(json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}).encode() + b"\n" for n in range(5))
    name = door.files.create(file=("chats.jsonl", data), purpose="fine-tune").id
    with up.client() as client:
        client.put("DatasetImport", "chats", {"dataset": "chats", "train": client.get("File", name).spec["digest"]})
        assert up.reaches("DatasetImport", "chats", "succeeded").status["counts"]["qa_train"] == 5


def test_a_workload_made_by_hand_is_not_given_the_key(up: Platform) -> None:
    role = {"command": ["{python}", "-c", "pass"], "resources": {"cpu": 0.1}}
    role |= {"secrets": {"KEY": "atoll-uploads/KEY"}}
    with up.client() as client:
        client.put("Workload", "curious", {"roles": [role], "restart": {"limit": 0}})
        assert "no secret 'atoll-uploads'" in str(up.reaches("Workload", "curious", "failed").status)
