"""Secrets go in, reach the tasks that name them, and come out nowhere else."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.store import Create
from running import files_of

from .conftest import House

HIDDEN = "p4ssw0rd-that-nobody-may-see"


def set_secret(house: House, name: str, project: str = "red", **options: Any) -> Any:
    return house.ask("POST", f"/projects/{project}/secrets", {"name": name, "values": {"KEY": HIDDEN}}, **options)


def everything_shown(house: House, project: str, name: str) -> str:
    """All that any route says of a secret, and all that is stored of the project."""
    paths = ("secrets", f"secrets/{name}", f"secrets/{name}/tree", "events", f"events?kind=secrets&name={name}")
    said = [str(house.ask("GET", f"/projects/{project}/{path}")) for path in paths]
    return "\n".join(said)


def test_no_route_and_no_file_shows_a_value(house: House) -> None:
    made = set_secret(house, "seen")
    assert made["spec"] == {"description": "", "names": ["KEY"]}
    stored = house.centre.store.scope("red").get("Secret", "seen").spec["sealed"]
    shown = everything_shown(house, "red", "seen")
    assert HIDDEN not in shown
    assert stored not in shown
    for path, data in files_of(house.home):
        assert HIDDEN.encode() not in data, path
    assert stat.S_IMODE((house.home / "run" / "secrets.key").stat().st_mode) == 0o600


def test_values_are_set_one_by_one_and_taken_away(house: House) -> None:
    set_secret(house, "several")
    ask = {"name": "several", "values": {"OTHER": "x"}, "description": "two of them"}
    assert house.ask("POST", "/projects/red/secrets", ask)["spec"]["names"] == ["KEY", "OTHER"]
    ask = {"name": "several", "values": {"OTHER": None}}
    left = house.ask("POST", "/projects/red/secrets", ask)["spec"]
    assert left == {"names": ["KEY"], "description": "two of them"}
    ask = {"name": "several", "values": {"KEY": None}}
    assert "would have no values" in house.ask("POST", "/projects/red/secrets", ask, code=400)["error"]["message"]
    assert house.ask("DELETE", "/projects/red/secrets/several") == {"deleted": True}
    house.ask("GET", "/projects/red/secrets/several", code=404)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Not A Name", "values": {"K": HIDDEN}},
        {"name": "a", "values": {"no good": HIDDEN}},
        {"name": "a", "values": {"K": HIDDEN + "\0"}},
        {"name": "a", "values": {"K": [HIDDEN]}},
        {"name": "a", "values": HIDDEN},
        {"name": "a", "values": {"K": HIDDEN}, "spec": {}},
        {"values": {"K": HIDDEN}},
    ],
)
def test_a_refusal_does_not_repeat_the_value(house: House, body: dict[str, Any]) -> None:
    assert HIDDEN not in str(house.ask("POST", "/projects/red/secrets", body, code=400))


def test_secrets_are_not_written_by_the_generic_routes(house: House) -> None:
    spec = {"names": ["K"], "sealed": "AAAA"}
    house.put("red", "secrets", "forged", spec, code=403)
    batch = {"resources": [{"kind": "Secret", "name": "forged", "spec": spec}]}
    house.ask("POST", "/projects/red/apply", batch, code=403)


def test_a_value_copied_to_another_tenant_does_not_open(house: House) -> None:
    set_secret(house, "moved")
    spec = house.centre.store.scope("red").get("Secret", "moved").spec
    house.centre.store.everything().write([Create("Secret", "blue", "moved", spec, {"phase": "ready"})])
    error = set_secret(house, "moved", "blue", code=500)["error"]
    assert "does not open" in error["message"]


def workload(references: dict[str, str], **more: Any) -> dict[str, Any]:
    role = {"command": ["true"], "env": {"PLAIN": "1"}, "secrets": references, "resources": {"cpu": 0.1}, **more}
    return {"roles": [role]}


@pytest.mark.parametrize(
    "references",
    [{"KEY": "api"}, {"KEY": "/KEY"}, {"KEY": "../api/KEY"}, {"1KEY": "api/KEY"}, {"A=B": "api/KEY"}, {"KEY": "a/b/c"}],
)
def test_a_reference_that_names_nothing_is_refused_when_written(house: House, references: dict[str, str]) -> None:
    error = house.put("red", "workloads", "bad", workload(references), code=400)["error"]
    assert error["details"]["field"].startswith("spec.roles.0.secrets")


class Agent:
    """The agent of a node, as the server sees one."""

    def __init__(self, house: House, node: str) -> None:
        self._house = house
        self._node = node
        inventory = {"cpu": 4.0, "memory_bytes": 1 << 30}
        body = {"node": node, "agent_id": "a1", "inventory": inventory}
        house.ask("POST", "/agent/register", body, key=house.system)

    def sync(self, **more: Any) -> list[dict[str, Any]]:
        body = {"node": self._node, "agent_id": "a1", "seen": 0, "wait_s": 0, **more}
        return list(self._house.ask("POST", "/agent/sync", body, key=self._house.system)["tasks"])


def place(house: House, node: str, name: str, references: dict[str, str], owner: str | None = None) -> str:
    """A task of project red on a node, as the workload controller makes it; its uid."""
    spec = {
        **{"node": node, "epoch": 1, "workload": name, "workload_uid": f"{name}-uid", "role": "main", "index": 0},
        **{"rank": 0, "world_size": 1, "command": ["true"], "env": {"PLAIN": "1"}, "input": {}, "secrets": references},
        **{"resources": {"cpu": 0.1, "memory_bytes": 0, "accelerators": 0}, "stop_grace_s": 1.0},
        **{"on_partition": "stop", "stop": False},
    }
    scope = house.centre.store.scope("red")
    scope.write([Create("Task", "red", name, spec, {"phase": "pending", "reason": ""}, owner=owner)])
    return scope.get("Task", name).uid


def test_a_task_gets_its_values_when_it_starts_and_the_store_never_does(house: House) -> None:
    set_secret(house, "for-task")
    agent = Agent(house, "n1")
    uid = place(house, "n1", "uses", {"TOKEN": "for-task/KEY"})
    [task] = agent.sync()
    assert task["env"] == {"PLAIN": "1", "TOKEN": HIDDEN}
    shown = house.ask("GET", "/projects/red/tasks/uses")
    assert shown["spec"]["secrets"] == {"TOKEN": "for-task/KEY"}
    assert HIDDEN not in str(shown)
    [running] = agent.sync(observed=[{"uid": uid, "epoch": 1, "state": "running"}])
    assert HIDDEN not in str(running)


def test_a_task_whose_secret_is_missing_is_handed_out_with_the_problem_only(house: House) -> None:
    agent = Agent(house, "n2")
    place(house, "n2", "lacks", {"TOKEN": "nowhere/KEY"})
    [task] = agent.sync()
    assert "no secret 'nowhere' in project 'red'" in task["problem"]
    assert task["env"] == {"PLAIN": "1"}


def test_a_task_cannot_name_a_secret_of_another_project(house: House) -> None:
    set_secret(house, "blues", "blue")
    agent = Agent(house, "n3")
    place(house, "n3", "reaches", {"TOKEN": "blues/KEY"})
    [task] = agent.sync()
    assert "no secret 'blues' in project 'red'" in task["problem"]


def test_a_secret_the_platform_made_is_only_for_what_belongs_to_its_owner(house: House) -> None:
    house.put("red", "datasets", "owning", {})
    scope = house.centre.store.scope("red")
    owner = scope.get("Dataset", "owning").uid
    spec = {"description": "", "names": ["KEY"], "sealed": house.centre.secrets.seal("red", "owned", {"KEY": HIDDEN})}
    workloads = {name: WORKLOAD.parse_spec(workload({"TOKEN": "owned/KEY"})) for name in ("belongs", "stranger")}
    scope.write(
        [
            Create("Secret", "red", "owned", spec, {"phase": "ready"}, owner=owner),
            Create("Workload", "red", "belongs", workloads["belongs"] | {"suspended": True}, {}, owner=owner),
            Create("Workload", "red", "stranger", workloads["stranger"] | {"suspended": True}, {}),
        ]
    )
    agent = Agent(house, "n4")
    for name in workloads:
        place(house, "n4", f"{name}-task", {"TOKEN": "owned/KEY"}, scope.get("Workload", name).uid)
    belongs, stranger = sorted(agent.sync(), key=lambda task: task["workload"])
    assert belongs["env"]["TOKEN"] == HIDDEN
    assert "no secret 'owned'" in stranger["problem"]
