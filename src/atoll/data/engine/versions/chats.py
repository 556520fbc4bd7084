"""An import of examples: JSON lines in, a dataset out.

Run as `python -m atoll.data.engine.versions.chats` in a task directory.
A line is {"messages": [{"role", "content"}, …]} or {"prompt", "completion"}. Every answer of the assistant becomes a
row: what was said before it, and the answer; an answer with "weight": 0 is only context. Nothing is dropped or
changed; a file with wrong lines is refused, naming them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import orjson

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.sealed import DataKey
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import CHAT_COLUMNS, SPLITS, Manifest, Split, write_manifest
from atoll.governance.data_keys import from_environment
from atoll.governance.uploads import Uploads

ROLES = ("system", "developer", "user", "assistant")
PARAMS = {"train": "training_file", "heldout": "validation_file"}
WRONG_LINES_MAX = 20
LINE_BYTES_MAX = 8 << 20
REPORT_EVERY = 500

Report = Callable[..., None]
Opened = Callable[[], IO[bytes]]
"""Opens one of the files that are read."""


class Wrong(Exception):
    """A line that cannot be used; the message says why."""


def import_chats(
    wanted: Mapping[str, Any],
    store: BlobStore,
    work: Path,
    report: Report = lambda *args, **more: None,
    keys: Sequence[DataKey] = (),
) -> dict[str, Any]:
    """Make the dataset of the files `train` and `heldout` (blob digests, heldout may be empty) in `store`.

    Those `sealed` names are opened with `keys`. Returns the manifest's digest and the counts; raises as `chats_of`.
    """
    uploads = Uploads(store, keys)
    sealed = wanted.get("sealed", ())
    digests = {name: wanted[name] for name in PARAMS if wanted.get(name)}
    files = {name: partial(uploads.open, digest, is_sealed=name in sealed) for name, digest in digests.items()}
    sources = [{"kind": "file", "digest": digest} for digest in digests.values()]
    manifest = chats_of(files, wanted.get("licence") or "unknown", sources, store, work, report)
    return {"manifest": write_manifest(store, manifest), "counts": manifest.counts}


def chats_of(
    files: Mapping[str, Opened],
    licence: str,
    sources: list[dict[str, Any]],
    store: BlobStore,
    work: Path,
    report: Report,
) -> Manifest:
    """The examples of the files `train` and `heldout` as a dataset, its shards in `store`.

    Invalid names every wrong line, up to WRONG_LINES_MAX, or the file that holds no example.
    """
    schema = {**SPLITS, "qa_train": CHAT_COLUMNS, "qa_heldout": CHAT_COLUMNS}
    splits = {"train": Split((), 0), "heldout": Split((), 0)}
    for split, name in (("qa_train", "train"), ("qa_heldout", "heldout")):
        splits[split] = _split(files[name], name, store, work, report) if name in files else Split((), 0)
    counts = {name: split.rows for name, split in splits.items()}
    return Manifest(splits, counts, [], {}, licence, sources, schema=schema)


def _split(file: Opened, name: str, store: BlobStore, work: Path, report: Report) -> Split:
    writer = SplitWriter(store, work, CHAT_COLUMNS)
    wrong: list[dict[str, Any]] = []
    rows = 0
    for number, line in _lines(file):
        try:
            for row in rows_of(line, f"{name}-{number}"):
                writer.add(row)
                rows += 1
        except Wrong as error:
            wrong.append({"line": number, "message": str(error), "param": PARAMS[name], "code": "invalid_line"})
            if len(wrong) == WRONG_LINES_MAX:
                break
        if number % REPORT_EVERY == 0:
            report("read", number, None, "line")
    if wrong:
        raise _refusal(name, wrong)
    if not rows:
        raise Invalid(f"the {name} file holds no example", field=name, hint="one JSON object a line, see the guide")
    return writer.close()


def _lines(file: Opened) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1."""
    with file() as stream:
        number = 0
        while line := stream.readline(LINE_BYTES_MAX + 1):
            number += 1
            if line.strip():
                yield number, line


def rows_of(line: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The rows one line gives, in order; Wrong when it gives none."""
    if len(line) > LINE_BYTES_MAX:
        raise Wrong(f"is longer than {LINE_BYTES_MAX} bytes")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Wrong(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Wrong("is not a JSON object")
    messages = _messages(value)
    taught = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.pop("weight", 1)]
    if not taught:
        raise Wrong("has no answer of the assistant to learn")
    for position in taught:
        yield _row(f"{name}-{position}", messages, position)


def _row(name: str, messages: Sequence[Mapping[str, Any]], position: int) -> dict[str, Any]:
    before = [{"role": m["role"], "content": m["content"]} for m in messages[:position]]
    question = next((m["content"] for m in reversed(before) if m["role"] == "user"), None)
    if question is None:
        raise Wrong("has an answer of the assistant before any message of the user")
    answer = messages[position]["content"]
    where = {"document": name, "span_start": 0, "span_end": len(answer)}
    return {"id": name, "question": question, "answer": answer, **where, "messages": orjson.dumps(before).decode()}


def _messages(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    unknown = sorted(set(value) - {"messages", "prompt", "completion", "parallel_tool_calls"})
    if unknown:
        raise Wrong(f"has {unknown[0]!r}, which is not understood here")
    if "messages" not in value:
        texts = [_text(value.get(name), name) for name in ("prompt", "completion")]
        return [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}]
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise Wrong("needs messages, a list that is not empty")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Wrong(f"{where} is not an object")
    unknown = sorted(set(message) - {"role", "content", "weight", "name"})
    if unknown:
        raise Wrong(f"{where} has {unknown[0]!r}, which is not understood here")
    if message.get("role") not in ROLES:
        raise Wrong(f"{where}.role cannot be {message.get('role')!r}; one of {', '.join(ROLES)}")
    if message.get("weight", 1) not in (0, 1):
        raise Wrong(f"{where}.weight cannot be {message['weight']!r}; 0 or 1")
    role = "system" if message["role"] == "developer" else message["role"]
    content = _text(message.get("content"), f"{where}.content")
    return {"role": role, "content": content, "weight": message.get("weight", 1)}


def _text(value: object, where: str) -> str:
    """A text, given as one or as a list of text parts."""
    if isinstance(value, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str) or not value:
        raise Wrong(f"{where} cannot be {value!r:.60}; a text that is not empty")
    return value


def _refusal(name: str, wrong: list[dict[str, Any]]) -> Invalid:
    first = wrong[0]
    count = f"{len(wrong)}{' or more' if len(wrong) == WRONG_LINES_MAX else ''}"
    words = f"{count} lines of the {name} file are wrong; line {first['line']} {first['message']}"
    return Invalid(words, field=name, hint="correct the file and upload it again", errors=wrong)


def main() -> None:
    """Run the task in the current task directory."""
    keys = from_environment()
    store = BlobStore(task.blobs_url())
    task.run(lambda value: import_chats(value, store, task.work_dir(), task.report_progress, keys))


if __name__ == "__main__":
    main()
