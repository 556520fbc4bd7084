"""The door and the home: who may come in, what is refused and how it is said."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from atoll.core.blobs import digest_of
from atoll.core.errors import AtollError
from atoll.sdk import Client, Credentials
from running import Platform, platform, until
from tiny_gguf import write_model


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("door")
    with platform(root / "home") as made:
        model = write_model(root / "tiny.gguf")
        with made.client() as client:
            client.put("ModelVersion", "tiny.v1", {"model": "tiny", "source": f"file:{model}", "licence": "MIT"})
            client.put("Deployment", "tiny", {"model": "tiny", "context": 512, "slots": 1, "cpu": 0.1, "threads": 1})
        made.reaches("Deployment", "tiny", "ready")
        yield made


def test_first_start_leaves_a_private_credentials_file(up: Platform) -> None:
    path = up.home / "credentials.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "sk-atoll-" in (up.home / "up.log").read_text()


def test_second_up_on_one_home_refuses_and_names_the_first(up: Platform) -> None:
    done = up.cli("up", "--listen", "127.0.0.1:0")
    assert done.returncode != 0
    assert str(up.pid("up")) in done.stderr
    assert up.address in done.stderr


def test_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = Platform(tmp_path / "home").cli("up", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--listen" in done.stderr


def test_nothing_listens_beyond_loopback(up: Platform) -> None:
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == up.port:
                listening.append(fields[1].rpartition(":")[0])
    assert listening == ["0100007F"]


def test_wrong_key_has_openais_shape(up: Platform) -> None:
    stranger = up.openai("sk-atoll-nobody")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_unknown_model_names_the_nearest(up: Platform) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny"):
        up.openai().chat.completions.create(model="tinny", messages=[{"role": "user", "content": "hi"}])


def test_wrong_field_is_named(up: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        up.openai().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], extra_body={"max_tokens": "many"}
        )
    assert caught.value.param == "max_tokens"


def test_chat_streams_and_completes_and_is_billed_as_counted(up: Platform) -> None:
    with up.client() as client:
        key = client.create_key(description="counts")
    up.knows("tiny", key.key)
    door = up.openai(key.key, retries=3)
    whole = door.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=5)
    stream = door.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    usages = [whole.usage, *(chunk.usage for chunk in stream if chunk.usage)]
    plain = door.completions.create(model="tiny", prompt="hi", max_tokens=5)
    usages.append(plain.usage)
    assert len(usages) == 3
    told = [sum(u.prompt_tokens for u in usages if u), sum(u.completion_tokens for u in usages if u)]

    def billed() -> list[int]:
        with up.client() as client:
            rows = [row for row in client.usage().rows if row.key == key.id]
        return [sum(r.prompt_tokens for r in rows), sum(r.completion_tokens for r in rows)]

    until(lambda: billed() == told, f"the statement to say {told}")


def test_a_ten_megabyte_prompt_is_refused_with_both_numbers(up: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        up.openai().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "ab " * 3_500_000}])
    assert caught.value.code == "context_length_exceeded"
    assert "512" in str(caught.value)


def test_a_client_that_leaves_in_mid_stream_frees_the_slot_and_is_billed(up: Platform) -> None:
    """The answer is so long that it cannot be over before the client leaves."""
    model = write_model(up.home.parent / "long.gguf", context=1 << 16)
    with up.client() as client:
        key = client.create_key(description="leaves early")
        client.put("ModelVersion", "long.v1", {"model": "long", "source": f"file:{model}", "licence": "MIT"})
        client.put("Deployment", "long", {"model": "long", "context": 1 << 16, "slots": 1, "cpu": 0.1, "threads": 1})
    up.reaches("Deployment", "long", "ready")
    up.knows("long", key.key, is_ready=True)
    door = up.openai(key.key)
    stream = door.chat.completions.create(
        model="long", messages=[{"role": "user", "content": "go on"}], max_tokens=60_000, stream=True
    )
    for got, _ in enumerate(stream, 1):
        if got == 3:
            break
    stream.close()
    again = door.chat.completions.create(model="long", messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    assert again.usage is not None

    def billed() -> int:
        with up.client() as client:
            return sum(r.completion_tokens for r in client.usage().rows if r.key == key.id)

    at_least = until(lambda: billed() if billed() > again.usage.completion_tokens else 0, "the cancelled stream's bill")
    assert at_least < 60_000
    with up.client() as client:
        client.delete("Deployment", "long")


def test_management_answers_say_what_is_wrong(up: Platform) -> None:
    with up.client() as client, pytest.raises(AtollError, match=r"spec\.replica") as caught:
        client.put("Deployment", "odd", {"model": "tiny", "replica": 2})
    assert "replicas" in caught.value.hint


def test_a_corrupt_gguf_is_refused_before_anything_starts(up: Platform, tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "torn.gguf").write_bytes(whole[: len(whole) // 2])
    with up.client() as client:
        client.put("ModelVersion", "torn.v1", {"model": "torn", "source": f"file:{tmp_path / 'torn.gguf'}"})
        sums = {"whole.gguf": "0" * 64}
        spec = {"model": "other", "source": f"file:{tmp_path / 'whole.gguf'}", "sha256": sums}
        client.put("ModelVersion", "other.v1", spec)
        client.put("Deployment", "torn", {"model": "torn.v1"})
    assert "torn.gguf" in up.reaches("ModelVersion", "torn.v1", "failed").status["reason"]
    assert "0000000" in up.reaches("ModelVersion", "other.v1", "failed").status["reason"]
    up.reaches("Deployment", "torn", "failed")
    with up.client() as client:
        assert [r.name for r in client.find_all("Replica").items if r.spec["deployment"] == "torn"] == []
        client.delete("Deployment", "torn")


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(up: Platform) -> None:
    with up.client() as client:
        spec = {"model": "tiny", "context": 8_000_000, "slots": 256, "hold": {"wait_s": 1}}
        client.put("Deployment", "huge", spec)
    failed = up.reaches("Deployment", "huge", "failed")
    assert "GiB are available: it does not fit" in failed.status["reason"]
    up.knows("huge")
    door = up.openai()

    def refused() -> openai.InternalServerError | None:
        with pytest.raises(openai.InternalServerError) as caught:
            door.chat.completions.create(model="huge", messages=[{"role": "user", "content": "hi"}])
        return caught.value if "does not fit" in str(caught.value) else None

    told = until(refused, "the gateway to know why")
    assert told is not None
    assert told.status_code == 503
    assert int(told.response.headers["retry-after"]) > 0
    with up.client() as client:
        client.delete("Deployment", "huge")


def test_no_route_lets_a_tenant_see_another(up: Platform) -> None:
    """Every route of the OpenAPI document, with a key of another project, on the first project's things."""
    with up.client() as admin:
        admin.put("Project", "other", {}, project="system")
        key = admin.create_key(description="other tenant", project="other")
        viewer = admin.create_key(description="reads only", role="viewer")
        document = httpx.get(f"{up.address}/api/v1/openapi.json", timeout=60).json()
    tried = 0
    known = {"project": "default", "plural": "deployments", "upload_id": "0" * 32, "digest": "sha256:" + "0" * 64}
    for path, verbs in document["paths"].items():
        filled = re.sub(r"{(\w+)}", lambda match: known.get(match[1], "tiny"), path)
        for verb in verbs:
            if "{project}" in path or "/agent/" in path or "/gateway/" in path:
                answer = httpx.request(
                    verb.upper(),
                    f"{up.address}{filled}",
                    headers={"Authorization": f"Bearer {key.key}", "Upload-Offset": "0"},
                    json={} if verb in ("post", "put", "patch") else None,
                    timeout=60,
                )
                assert answer.status_code in (400, 403), (verb, path, answer.status_code, answer.text)
                if answer.status_code == 400:
                    assert "tiny" not in answer.text
                tried += 1
    assert tried > 15
    with (
        Client.connect(Credentials(up.address, "default", viewer.key)) as reads,
        pytest.raises(AtollError, match="may not"),
    ):
        reads.delete("Deployment", "tiny")
    assert up.read("Deployment", "tiny") is not None
    until(lambda: _allowed(up.openai(key.key)), "the other's key to be known")
    with pytest.raises(openai.NotFoundError):
        up.openai(key.key).chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])


def test_a_revoked_key_is_refused(up: Platform) -> None:
    with up.client() as client:
        key = client.create_key(description="short life")
        door = up.openai(key.key)
        until(lambda: _allowed(door), "the new key to be known")
        client.revoke_key(key.id)
    until(lambda: not _allowed(door), "the revoked key to be refused")


def _allowed(door: openai.OpenAI) -> bool:
    try:
        door.models.list()
    except openai.AuthenticationError:
        return False
    return True


def test_uploads_resume_and_downloads_go_on(up: Platform) -> None:
    data = bytes(range(256)) * 64
    credentials = up.home / "credentials.toml"
    secret = credentials.read_text().split('key = "')[1].split('"')[0]
    address, headers = f"{up.address}/api/v1/projects/default", {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=address, headers=headers, timeout=60) as http:
        upload = http.post("/uploads").json()["id"]
        assert http.patch(f"/uploads/{upload}", content=data[:5000], headers={"Upload-Offset": "0"}).status_code == 200
        wrong = http.patch(f"/uploads/{upload}", content=data[4000:], headers={"Upload-Offset": "4000"})
        assert wrong.status_code == 409
        assert "5000" in wrong.json()["error"]["message"]
        went_on = http.get(f"/uploads/{upload}").json()["size_bytes"]
        http.patch(f"/uploads/{upload}", content=data[went_on:], headers={"Upload-Offset": str(went_on)})
        done = http.post(f"/uploads/{upload}", json={"digest": digest_of(data)})
        assert done.json() == {"digest": digest_of(data), "size_bytes": len(data)}
        assert http.get(f"/blobs/{digest_of(data)}").content == data
        rest = http.get(f"/blobs/{digest_of(data)}", headers={"Range": "bytes=1000-"})
        assert (rest.status_code, rest.content) == (206, data[1000:])


def test_watch_tells_what_changes(up: Platform) -> None:
    with up.client() as client:
        seen = client.find_all("Deployment").head
        client.put("Deployment", "idle", {"model": "tiny", "replicas": 0})
        for event in client.watch("Deployment", seen=seen):
            if event.resource is not None and event.resource.name == "idle":
                break
        client.delete("Deployment", "idle")


def test_logs_come_through_the_agent(up: Platform) -> None:
    role = {"command": ["{python}", "-c", "print('line one'); print('line two')"], "resources": {"cpu": 0.1}}
    with up.client() as client:
        client.put("Workload", "talks", {"roles": [role]})
        up.reaches("Workload", "talks", "succeeded")
        assert "line one\nline two" in "".join(client.logs("Workload", "talks"))
