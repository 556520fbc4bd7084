"""Files through the official client: streamed in, listed page by page, read back, and gone when deleted."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
from contextlib import closing

import httpx
import openai
import pytest

from atoll.core.blobs import digest_of
from running import Platform, until


def upload(door: openai.OpenAI, data: bytes, name: str = "a.jsonl", purpose: str = "user_data") -> str:
    return door.files.create(file=(name, data), purpose=purpose).id  # type: ignore[arg-type]


def test_a_file_comes_back_byte_for_byte(door: openai.OpenAI) -> None:
    data = os.urandom(20 << 20)
    made = door.files.create(file=("weights.bin", data), purpose="user_data")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(data), "weights.bin", "user_data")
    assert abs(made.created_at - time.time()) < 60
    assert door.files.content(made.id).content == data
    assert door.files.retrieve(made.id) == made


def test_files_are_listed_page_by_page_newest_first(door: openai.OpenAI) -> None:
    for other in list(door.files.list(purpose="assistants")):
        door.files.delete(other.id)
    made = [upload(door, b"{}\n", f"{n}.jsonl", "assistants") for n in range(5)]
    assert [f.id for f in door.files.list(purpose="assistants")] == made[::-1]
    assert [f.id for f in door.files.list(purpose="assistants", order="asc", limit=2)] == made
    page = door.files.list(purpose="assistants", limit=2)
    assert ([f.id for f in page.data], page.has_more) == ([made[4], made[3]], True)
    with pytest.raises(openai.BadRequestError) as caught:
        door.files.list(after="file-unheard-of")
    assert caught.value.param == "after"


def test_a_deleted_file_is_gone(door: openai.OpenAI) -> None:
    name = upload(door, b"short life")
    assert door.files.delete(name).deleted
    for ask in (door.files.retrieve, door.files.content, door.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(name)
    assert name not in [f.id for f in door.files.list()]


def test_a_file_ends_when_its_time_has_come(door: openai.OpenAI, up: Platform) -> None:
    began = int(time.time())
    made = door.files.create(
        file=("a.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at is not None
    assert began + 3600 <= made.expires_at <= made.created_at + 3600 <= time.time() + 3600
    with pytest.raises(openai.BadRequestError):
        door.files.create(
            file=("a.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 5}
        )
    with up.client() as client:
        assert client.get("File", made.id).spec["digest"] != digest_of(b"{}"), "the blob is sealed"


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"purpose": "batch"}}, "file"),
        ({"files": {"file": ("a", b"x")}}, "purpose"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "mischief"}}, "purpose"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"y"))], "data": {"purpose": "batch"}}, "file"),
        ({"content": b"--", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "file"),
        ({"content": b"--", "headers": {"Content-Type": "multipart/form-data"}}, "file"),
        ({"json": {}}, "file"),
    ],
)
def test_a_wrong_form_names_what_is_wrong(door: openai.OpenAI, form: dict[str, object], param: str) -> None:
    headers = {"Authorization": f"Bearer {door.api_key}", **form.pop("headers", {})}  # type: ignore[dict-item]
    answer = httpx.post(f"{door.base_url}files", headers=headers, timeout=60, **form)  # type: ignore[arg-type]
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_a_name_with_a_path_or_control_characters_is_cut_to_a_plain_one(door: openai.OpenAI) -> None:
    assert door.files.create(file=("../../etc/pass\x1bwd", b"x"), purpose="user_data").filename == "passwd"


def test_without_a_key_nothing_is_read_of_a_body(door: openai.OpenAI) -> None:
    form = {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch"}}
    answer = httpx.post(f"{door.base_url}files", timeout=60, **form)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_another_tenants_files_are_not_there(door: openai.OpenAI, stranger: openai.OpenAI) -> None:
    name = upload(door, b"secret")
    for ask in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(name)
    assert name not in [f.id for f in stranger.files.list()]
    with pytest.raises(openai.PermissionDeniedError):
        stranger.with_options(project="default").files.retrieve(name)
    assert door.with_options(project="elsewhere").files.list().data == []
    assert upload(door.with_options(project="elsewhere"), b"x") in [f.id for f in stranger.files.list()]


def test_the_blob_of_a_file_lives_as_long_as_the_file(door: openai.OpenAI, up: Platform) -> None:
    name = upload(door, b"kept alive")
    with up.client() as client:
        assert client.get("File", name).spec["digest"] != digest_of(b"kept alive"), "the blob is sealed"
        door.files.delete(name)
        until(lambda: client.find("File", name) is None, "the file to go")


def test_a_large_file_comes_in_parts_in_any_order(door: openai.OpenAI) -> None:
    halves = (os.urandom(3 << 20), os.urandom(1000))
    size = sum(map(len, halves))
    upload = door.uploads.create(
        filename="big.bin", purpose="user_data", bytes=size, mime_type="application/octet-stream"
    )
    assert (upload.object, upload.status) == ("upload", "pending")
    last, first = (door.uploads.parts.create(upload.id, data=half).id for half in halves[::-1])
    with pytest.raises(openai.BadRequestError) as caught:
        door.uploads.complete(upload.id, part_ids=[first])
    assert str(size) in str(caught.value)
    with pytest.raises(openai.BadRequestError) as caught:
        door.uploads.complete(upload.id, part_ids=[first, last], md5="0" * 32)
    assert caught.value.param == "md5"
    whole = b"".join(halves)
    done = door.uploads.complete(
        upload.id, part_ids=[first, last], md5=hashlib.md5(whole, usedforsecurity=False).hexdigest()
    )
    assert done.status == "completed"
    assert done.file is not None
    assert door.files.content(done.file.id).content == whole
    with pytest.raises(openai.ConflictError):
        door.uploads.parts.create(upload.id, data=b"late")


def test_a_cancelled_upload_takes_no_more(door: openai.OpenAI, stranger: openai.OpenAI) -> None:
    upload = door.uploads.create(filename="a", purpose="user_data", bytes=1, mime_type="text/plain")
    for ask in (
        lambda: stranger.uploads.cancel(upload.id),
        lambda: stranger.uploads.parts.create(upload.id, data=b"x"),
        lambda: stranger.uploads.complete(upload.id, part_ids=["x"]),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert door.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        door.uploads.parts.create(upload.id, data=b"x")


def test_a_file_beyond_the_limit_is_refused(door: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        door.uploads.create(filename="a", purpose="user_data", bytes=1 << 40, mime_type="text/plain")
    assert caught.value.status_code == 413
    with closing(http.client.HTTPConnection(str(door.base_url.host), door.base_url.port, timeout=60)) as connection:
        connection.putrequest("POST", "/v1/files")
        connection.putheader("Authorization", f"Bearer {door.api_key}")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders()
        assert connection.getresponse().status == 413
