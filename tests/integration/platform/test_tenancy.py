"""Keys, members and secrets on a whole platform: through the door, down to the task."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from atoll.core.errors import Forbidden, Unauthorized
from atoll.sdk import Client, Credentials
from running import Platform, platform, until

HIDDEN = "p4ssw0rd-that-nobody-may-see"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("tenancy") / "home") as made:
        yield made


def client_of(up: Platform, key: str, project: str = "default") -> Client:
    return Client.connect(Credentials(up.address, project, key))


def is_let_in(up: Platform, key: str) -> bool:
    """Whether the gateway knows the key."""
    try:
        up.openai(key).models.list()
    except openai.AuthenticationError:
        return False
    return True


def uses_secret(references: dict[str, str], code: str) -> dict[str, Any]:
    role = {"command": ["{python}", "-c", code], "secrets": references, "resources": {"cpu": 0.1}}
    return {"roles": [role], "restart": {"policy": "never"}}


def test_a_task_has_the_value_and_only_files_of_its_owner_hold_it(up: Platform) -> None:
    with up.client() as client:
        client.set_secret("api", {"KEY": HIDDEN})
        code = "import hashlib, os; print('saw', hashlib.sha256(os.environ['TOKEN'].encode()).hexdigest())"
        client.put("Workload", "sees", uses_secret({"TOKEN": "api/KEY"}, code))
        up.reaches("Workload", "sees", "succeeded")
        assert f"saw {hashlib.sha256(HIDDEN.encode()).hexdigest()}" in "".join(client.logs("Workload", "sees"))
    found = []
    for folder, _, names in os.walk(up.home):
        for path in [Path(folder, name) for name in names]:
            with suppress(FileNotFoundError):  # files come and go while the platform runs
                if path.is_file() and HIDDEN.encode() in path.read_bytes():
                    found.append((path.name, *(stat.S_IMODE(at.stat().st_mode) for at in (path, path.parent))))
    assert set(found) <= {("task.json", 0o600, 0o700)}


def test_a_task_without_its_secret_never_starts_and_says_which(up: Platform, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    with up.client() as client:
        spec = uses_secret({"TOKEN": "api/NOTHING"}, f"open({str(mark)!r}, 'w')")
        client.put("Workload", "blind", spec)
    failed = up.reaches("Workload", "blind", "failed")
    assert "secret 'api' of project 'default' has no value 'NOTHING'" in failed.status["reason"]
    assert not mark.exists()


def test_a_sealed_secret_outlives_a_restart_of_the_server(up: Platform) -> None:
    with up.client() as client:
        client.set_secret("lasting", {"KEY": HIDDEN})
        up.kill("server")
        until(up.is_answering, "the server to be back")
        code = "import os, sys; sys.exit(os.environ['TOKEN'] != 'p4ssw0rd-that-' + 'nobody-may-see')"
        client.put("Workload", "after", uses_secret({"TOKEN": "lasting/KEY"}, code))
    up.reaches("Workload", "after", "succeeded")


def test_a_rotated_key_and_its_successor_both_work_until_the_overlap_ends(up: Platform) -> None:
    with up.client() as client:
        old = client.create_key("rotates")
        until(lambda: is_let_in(up, old.key), "the key to be known")
        new = client.rotate_key(old.id, overlap_s=600)
        until(lambda: is_let_in(up, new.key), "its successor to be known")
        assert is_let_in(up, old.key)
        client.rotate_key(new.id, overlap_s=0)
        until(lambda: not is_let_in(up, new.key), "the rotated key to be refused")


def test_a_disabled_user_is_refused_at_both_doors_and_a_watch_ends(up: Platform) -> None:
    with up.client() as admin:
        admin.put("User", "ada", {})
        admin.put("Membership", "ada", {"role": "member"})
        key = admin.create_key(user="ada").key
        until(lambda: is_let_in(up, key), "the person's key to be known")
        with client_of(up, key) as ada:
            seen = ada.find_all("Dataset").head
            watching = ada.watch("Dataset", seen=seen)
            admin.put("Dataset", "shown", {})
            assert next(watching).name == "shown"
            admin.put("User", "ada", {"disabled": True})
            with pytest.raises(Unauthorized):
                list(watching)
        until(lambda: not is_let_in(up, key), "the gateway to refuse the key")


def test_a_viewer_calls_no_model_but_reads(up: Platform) -> None:
    with up.client() as admin:
        viewer = admin.create_key(role="viewer").key
        later = admin.create_key().key
    until(lambda: is_let_in(up, later), "a key made later to be known")
    assert not is_let_in(up, viewer)
    with client_of(up, viewer) as client:
        client.find_all("Deployment")


def test_a_key_is_bound_to_its_networks_behind_the_door_too(up: Platform) -> None:
    with up.client() as admin:
        near = admin.create_key(addresses=["127.0.0.0/8"]).key
        far = admin.create_key(addresses=["192.0.2.0/24"]).key
    with client_of(up, near) as client:
        client.find_all("Dataset")
    with client_of(up, far) as client, pytest.raises(Forbidden, match=r"may not be used from 127\.0\.0\.1"):
        client.find_all("Dataset")


def test_what_is_made_without_rights_is_made_by_no_detour(up: Platform) -> None:
    """Generic apply, batches and key routes, as a member who wants to be more."""
    with up.client() as admin:
        key = admin.create_key().key
    address = f"{up.address}/api/v1/projects/default"
    headers = {"Authorization": f"Bearer {key}"}
    spec: dict[str, Any] = {"role": "owner"}
    batch = {"resources": [{"kind": "Membership", "name": "me", "spec": spec}]}
    attempts = [
        ("POST", "/apply", batch),
        ("PUT", "/memberships/me", {"spec": spec}),
        ("PUT", "/apikeys/admin", {"spec": {"role": "admin", "sha256": "0" * 64}}),
        ("POST", "/keys", {"role": "admin"}),
        ("PATCH", "/keys/admin", {"description": "mine"}),
        ("POST", "/keys/admin/rotate", {}),
        ("DELETE", "/keys/admin", None),
        ("DELETE", "/apikeys/admin", None),
        ("POST", "/secrets", {"name": "api", "values": {"KEY": "mine"}}),
        ("DELETE", "/secrets/api", None),
    ]
    for method, path, body in attempts:
        answer = httpx.request(method, address + path, headers=headers, json=body, timeout=60)
        assert answer.status_code == 403, (method, path, answer.text)
        assert json.loads(answer.text)["error"]["hint"]


def test_a_deleted_project_takes_all_of_it_along_and_its_name_begins_anew(up: Platform, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    role = {"command": ["{python}", "-c", code], "resources": {"cpu": 0.1}}
    with up.client() as admin:
        admin.put("Project", "brief", {}, project="system")
        admin.put("User", "bob", {}, project="system")
        admin.put("Membership", "bob", {"role": "owner"}, project="brief")
        key = admin.create_key(project="brief").key
        admin.put("Dataset", "papers", {}, project="brief")
        admin.put("Workload", "runs", {"roles": [role]}, project="brief")
        pid = int(until(lambda: mark.exists() and mark.read_text(), "the workload to run"))
        until(lambda: is_let_in(up, key), "the key to be known")
        admin.delete("Project", "brief", project="system")
        until(lambda: admin.find("Project", "brief", project="system") is None, "the project to be gone")
        assert not Path(f"/proc/{pid}").exists()
        until(lambda: not is_let_in(up, key), "its key to be refused")
        admin.put("Project", "brief", {}, project="system")
        for kind in ("Dataset", "Workload", "Membership", "ApiKey"):
            assert admin.find_all(kind, project="brief").items == []
        later = admin.create_key(project="brief").key
        until(lambda: is_let_in(up, later), "a key of the new project to be known")
    assert not is_let_in(up, key)


def test_a_deleted_user_leaves_no_membership_and_no_key(up: Platform) -> None:
    with up.client() as admin:
        admin.put("User", "eve", {})
        admin.put("Membership", "eve", {"role": "member"})
        made = admin.create_key(user="eve")
        until(lambda: is_let_in(up, made.key), "the person's key to be known")
        admin.delete("User", "eve", project="system")
        until(lambda: admin.find("User", "eve", project="system") is None, "the user to be gone")
        assert admin.find("Membership", "eve") is None
        assert admin.find("ApiKey", made.id) is None
        admin.put("User", "eve", {})
        until(lambda: not is_let_in(up, made.key), "the old key to be refused for the new user")
