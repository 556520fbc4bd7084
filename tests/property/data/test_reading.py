"""Reading does not depend on where chunks, ranges and batches end."""

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.curate.plan import Normalise, Source
from atoll.data.engine.normalise.text import normalise, normalise_column
from atoll.data.engine.questions.conversation import Message, chat_text, messages_of
from atoll.data.engine.read import Quarantined, batches, documents, plan_parts
from atoll.data.engine.read import lines as reading_lines
from atoll.data.engine.read.encodings import decode
from atoll.data.engine.read.item import Unreadable

KINDS = ("text", "markdown", "rst", "code", "chat", "module")
AWKWARD = st.sampled_from(
    [
        *" \t\n\r\f\x00\x1e\x1f\x85\u00a0\u00ad\u0301\u200b\u2026\u2028\u3000\ufeff\uff21\uff0c",
        "\n\n\n",
        "<!--",
        "-->",
        "---\n",
        ":a:`b`",
        "中",
        "a",
    ]
)
TEXTS = st.lists(AWKWARD | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"bcdef"])).map(b"".join),
    st.integers(1, 9),
)
@settings(deadline=None)
def test_lines_are_the_same_however_the_stream_is_chunked(data: bytes, most: int) -> None:
    before = reading_lines.CHUNK_BYTES
    wanted = [line if len(line) <= most else None for line in data.split(b"\n")]
    if data.endswith(b"\n") or not data:
        wanted.pop()
    try:
        for chunk in (1, 2, 3, 7, 1000):
            reading_lines.CHUNK_BYTES = chunk
            found = list(reading_lines.lines(io.BytesIO(data), most))
            assert found == list(enumerate(wanted, 1))
    finally:
        reading_lines.CHUNK_BYTES = before


@given(
    st.lists(st.sampled_from(['{"text": "a"}', '{"text": "long long"}', "", "broken", '{"id": "x", "text": "b"}'])),
    st.integers(1, 80),
)
@settings(deadline=None, max_examples=50)
def test_a_file_gives_the_same_documents_however_it_is_cut(lines: list[str], part_bytes: int) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_text("\n".join(lines))
        source = Source("folder", path=folder)
        whole, cut = plan_parts(source, "s"), plan_parts(source, "s", part_bytes=part_bytes)
        assert [item for part in cut for item in documents(part)] == list(documents(whole[0]))
        assert sum(part.bytes for part in cut) == whole[0].bytes


@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(8, 200), st.sampled_from(["nfc", "nfkc"]))
@settings(deadline=None, max_examples=60)
def test_batches_hold_the_same_however_large_they_are(texts: list[str], batch_bytes: int, form: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        (part,) = plan_parts(Source("folder", path=folder), "s")
        wanted = [item for item in documents(part) if not isinstance(item, Quarantined)]
        found = [
            item
            for item in batches(part, batch_bytes=batch_bytes, normalise=Normalise(form))
            if isinstance(item, pa.RecordBatch)
        ]
        assert [text.as_py() for batch in found for text in batch.column("text")] == [
            normalise(item.text, item.kind, form) for item in wanted
        ]


@given(st.lists(st.tuples(TEXTS, st.sampled_from(KINDS)), max_size=12), st.sampled_from(["nfc", "nfkc"]))
@settings(deadline=None, max_examples=300)
def test_a_column_is_normalised_like_its_texts(rows: list[tuple[str, str]], form: str) -> None:
    texts, kinds = [text for text, _ in rows], [kind for _, kind in rows]
    wanted = [normalise(text, kind, form) for text, kind in rows]
    assert normalise_column(texts, kinds, form).to_pylist() == wanted


@given(TEXTS, st.sampled_from(["text", "code", "chat"]), st.sampled_from(["nfc", "nfkc"]))
@settings(deadline=None, max_examples=300)
def test_what_is_normal_stays_as_it_is(text: str, kind: str, form: str) -> None:
    once = normalise(text, kind, form)
    assert normalise(once, kind, form) == once


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), TEXTS), min_size=1))
@settings(deadline=None)
def test_a_chat_comes_back_from_its_text(said: list[tuple[str, str]]) -> None:
    messages = [Message(role, text.replace("\x1e", "").replace("\x1f", "")) for role, text in said]
    assert messages_of(chat_text(messages)) == messages


@given(
    st.text(alphabet="的一是了我们在有他这中大来上国个到说用户数据文件可以时间\uff0c。abc 123\n", min_size=30),
    st.sampled_from(["utf-8", "utf-16", "gb18030"]),
)
@settings(deadline=None)
def test_chinese_text_comes_back_from_every_known_encoding(text: str, encoding: str) -> None:
    if sum(character >= "\u4e00" for character in text) < 5:
        return
    assert decode(text.encode(encoding)) == text


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        assert "\0" not in decode(data)
    except Unreadable as error:
        assert str(error)
