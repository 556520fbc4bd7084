"""Serving on a real platform: versions take over under load, canaries, rollbacks, sleep, adapters, providers, plans."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from atoll.core.resources import Resource
from running import Platform, platform, until

pytest.importorskip("xllamacpp", reason="the serving engine is not installed (pip install atoll[serve])")
from tiny_gguf import write_model

SMALL = {"context": 256, "slots": 2, "cpu": 0.05, "threads": 1}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("serving")
    with platform(root / "home") as made:
        with made.client() as client:
            for number in (1, 2, 3):
                path = write_model(root / f"tiny{number}.gguf", seed=number)
                spec = {"model": "tiny", "source": f"file:{path}", "licence": "MIT"}
                client.put("ModelVersion", f"tiny.v{number}", spec)
        for number in (1, 2, 3):
            made.reaches("ModelVersion", f"tiny.v{number}", "ready")
        yield made


def deploy(up: Platform, name: str, **spec: Any) -> None:
    with up.client() as client:
        known = client.find("Deployment", name)
        client.put("Deployment", name, (known.spec if known else {"model": "tiny.v1", **SMALL}) | spec)
    if known is None:
        up.knows(name)


def serves(up: Platform, name: str, version: str, phase: str = "ready") -> Resource:
    def served() -> bool:
        found = up.read("Deployment", name)
        seen.append(found and found.status)
        return found is not None and found.status.get("version") == version and found.phase == phase

    seen: list[Any] = []
    until(served, f"{name} to serve {version}, not {seen[-1:]}", 180)
    return up.reaches("Deployment", name, phase)


def ask(up: Platform, model: str, door: openai.OpenAI | None = None, **options: Any) -> str:
    door = door or up.openai(retries=3)
    reply = door.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=3, **options
    )
    assert reply.usage is not None
    return reply.choices[0].message.content or ""


def snapshot(up: Platform) -> dict[str, Any]:
    key = (up.home / "run" / "system.key").read_text().strip()
    url = f"{up.address}/api/v1/gateway/snapshot"

    def ask_for_it() -> dict[str, Any]:
        answer = httpx.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        return answer.json() if answer.status_code == 200 else {}

    return until(ask_for_it, "the server to answer")


def targets(up: Platform, name: str, project: str = "default") -> list[dict[str, Any]]:
    entry = snapshot(up)["models"].get(project, {}).get(name) or {"targets": []}
    found: list[dict[str, Any]] = entry["targets"]
    return found


@contextmanager
def asking(up: Platform, model: str) -> Iterator[Counter[str]]:
    """Somebody asks all the while; what came of it is counted."""
    told: Counter[str] = Counter()
    is_over = threading.Event()
    door = up.openai()

    def go_on() -> None:
        while not is_over.is_set():
            try:
                ask(up, model, door)
                told["answered"] += 1
            except openai.OpenAIError as error:
                told[f"failed: {error}"] += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield told
    finally:
        is_over.set()
        thread.join(60)


def test_a_new_version_takes_over_without_a_failed_request(up: Platform) -> None:
    deploy(up, "steady", replicas=1)
    serves(up, "steady", "tiny.v1")
    with asking(up, "steady") as told:
        until(lambda: told["answered"] > 3, "some answers")
        deploy(up, "steady", model="tiny.v2")
        serves(up, "steady", "tiny.v2")
        after = told["answered"]
        until(lambda: told["answered"] > after + 3, "answers of the new version")
    assert set(told) == {"answered"}, told
    until(lambda: [len(t["replicas"]) for t in targets(up, "steady")] == [1], "the old replica to be gone")


def test_a_server_killed_in_mid_rollout_loses_no_request_and_finishes_it(up: Platform) -> None:
    deploy(up, "tough", replicas=2)
    serves(up, "tough", "tiny.v1")
    with asking(up, "tough") as told:
        until(lambda: told["answered"] > 3, "some answers")
        deploy(up, "tough", model="tiny.v3")
        up.kill("server")
        serves(up, "tough", "tiny.v3")
        up.kill("server")
        after = told["answered"]
        until(lambda: told["answered"] > after + 3, "answers of the new version")
    assert set(told) == {"answered"}, told
    until(lambda: [len(t["replicas"]) for t in targets(up, "tough")] == [2], "both to serve")
    with up.client() as client:
        client.delete("Deployment", "tough")


def test_a_version_that_cannot_start_leaves_the_old_one_serving(up: Platform) -> None:
    deploy(up, "solid")
    serves(up, "solid", "tiny.v1")
    deploy(up, "solid", model="tiny.v2", context=2048)  # the model was made for 1024
    failed = up.reaches("Deployment", "solid", "degraded")
    failed = until(lambda: (d := up.read("Deployment", "solid")) and "serves on" in d.status["reason"] and d, "why")
    assert failed.status["reason"].startswith("tiny.v2 does not start, tiny.v1 serves on")
    assert "1024" in failed.status["reason"]
    assert ask(up, "solid") is not None
    done = up.cli("rollback", "solid")
    assert done.returncode == 0, done.stderr
    assert "Deployment solid goes back to tiny.v1; it is ready" in done.stdout


def test_a_rollback_is_instant_while_the_previous_replicas_run(up: Platform) -> None:
    deploy(up, "quick", rollout={"surge": 1, "keep_previous_s": 600})
    serves(up, "quick", "tiny.v1")
    (before,) = targets(up, "quick")[0]["replicas"]
    deploy(up, "quick", model="tiny.v2")
    serves(up, "quick", "tiny.v2")
    (during,) = targets(up, "quick")[0]["replicas"]
    done = up.cli("rollback", "quick")
    assert done.returncode == 0, done.stderr
    assert targets(up, "quick")[0]["replicas"] == [before] != [during]
    with up.client() as client:
        client.delete("Deployment", "quick")


def test_a_canary_gets_its_part_and_is_promoted(up: Platform) -> None:
    deploy(up, "bird")
    serves(up, "bird", "tiny.v1")
    done = up.cli("deploy", "tiny.v3", "--name", "bird", "--canary", "0.5")
    assert done.returncode == 0, done.stderr
    assert "fit of bird: needs" in done.stderr
    assert [(t["version"], t["weight"], len(t["replicas"])) for t in targets(up, "bird")] == [
        ("tiny.v1", 0.5, 1),
        ("tiny.v3", 0.5, 1),
    ]
    assert up.cli("promote", "bird").returncode == 0
    serves(up, "bird", "tiny.v3")
    assert [t["version"] for t in targets(up, "bird")] == ["tiny.v3"]
    assert ask(up, "bird") is not None
    refused = up.cli("promote", "bird")
    assert "has no canary" in refused.stderr


def test_an_idle_deployment_sleeps_and_a_held_request_wakes_it(up: Platform) -> None:
    deploy(up, "sleeper", autoscale={"min": 0, "max": 1, "idle_s": 2, "scale_down_s": 2})
    until(lambda: (d := up.read("Deployment", "sleeper")) and d.phase == "asleep", "it to fall asleep", 180)
    until(lambda: not [t for t in up.tasks() if "sleeper" in t.spec["workload"] and t.phase == "running"], "its end")
    assert targets(up, "sleeper")[0]["replicas"] == []
    assert ask(up, "sleeper", up.openai(retries=0)) is not None
    with up.client() as client:
        events = [f"{e.reason}: {e.message}" for e in client.events("Deployment", "sleeper")]
    assert any(e.startswith("ScaledDown: 1 to 0 replicas: no request for 2 s") for e in events)
    assert any(e.startswith("ScaledUp: 0 to 1 replicas: 1 request came while it was asleep") for e in events)
    done = up.cli("scale", "sleeper", "1")
    assert done.stdout == "Deployment sleeper: 1 copies\n", done.stderr
    up.reaches("Deployment", "sleeper", "ready")


def test_a_replica_that_is_killed_is_out_of_the_table_at_once(up: Platform) -> None:
    deploy(up, "pair", replicas=2)
    serves(up, "pair", "tiny.v1")
    before = {r["id"]: r for r in targets(up, "pair")[0]["replicas"]}
    assert len(before) == 2
    victim = next(t for t in up.tasks() if t.spec["workload"].startswith("replica-pair") and t.phase == "running")
    os.kill(victim.status["pid"], signal.SIGKILL)

    def alive() -> list[str]:
        """Those that are as they were; one that is back has another address."""
        return [r["id"] for r in targets(up, "pair")[0]["replicas"] if r == before.get(r["id"])]

    until(lambda: len(alive()) < 2, "the dead one to be gone")
    assert len(alive()) == 1
    until(lambda: len(targets(up, "pair")[0]["replicas"]) == 2, "it to be back", 180)


def test_a_provider_is_a_model_like_any_other(up: Platform) -> None:
    """The service elsewhere is this very door, asked with a key kept as a secret."""
    deploy(up, "behind")
    serves(up, "behind", "tiny.v1")
    models = [{"name": "outside", "model": "behind", "context": 256}]
    with up.client() as client:
        key = client.create_key(description="for the provider")
        spec = {"url": f"{up.address}/v1", "secret": "vendor/key", "models": models}
        client.put("Provider", "vendor", spec)
    assert "vendor" in up.reaches("Provider", "vendor", "failed").status["reason"]
    done = up.cli("secrets", "set", "vendor", "key=-", input=key.key)
    assert done.returncode == 0, done.stderr
    up.reaches("Provider", "vendor", "ready")
    until(lambda: targets(up, "outside")[0]["replicas"], "the secret to reach the table")
    up.knows("outside", is_ready=True)
    assert ask(up, "outside") is not None
    with up.client() as client:
        client.put("Route", "best", {"targets": [{"model": "behind", "weight": 0}, {"model": "outside", "weight": 1}]})
        up.reaches("Route", "best", "ready")
        seen = json.dumps([client.get("Provider", "vendor").spec, client.get("Provider", "vendor").status])
    assert key.key not in seen
    up.knows("best", is_ready=True)
    assert ask(up, "best") is not None


def test_a_shared_deployment_is_called_and_paid_by_others(up: Platform) -> None:
    deploy(up, "common", share=["tenant"])
    with up.client() as client:
        client.put("Project", "tenant", {}, project="system")
        key = client.create_key(description="tenant's", project="tenant")
    serves(up, "common", "tiny.v1")
    until(lambda: targets(up, "common", "tenant"), "it to be shared")
    up.knows("common", key.key)
    assert ask(up, "common", up.openai(key.key, retries=3)) is not None

    def paid() -> list[Any]:
        with up.client() as client:
            return [row for row in client.usage(project="tenant").rows if row.model == "common"]

    assert until(paid, "the tenant's statement")[0].completion_tokens == 3


def test_the_plan_says_what_fits_before_anything_starts(up: Platform, tmp_path: Path) -> None:
    fits = up.cli("plan", "serving", "tiny.v1", "--context", "512", "--slots", "2", "--cpu", "0.01")
    assert fits.returncode == 0, fits.stdout + fits.stderr
    assert fits.stdout.startswith("tiny.v1 on llamacpp needs ")
    assert "there is room for" in fits.stdout
    huge = up.cli("plan", "serving", "tiny.v1", "--context", "8000000", "--slots", "256", "-o", "json")
    assert huge.returncode == 1
    plan = json.loads(huge.stdout)
    assert (plan["fits"], plan["best"]) == (False, None)
    assert plan["summary"].startswith("does not fit: the largest is ")
    assert {s["field"] for s in plan["suggestions"]} <= {"context", "slots"}
    assert plan["suggestions"]
    manifest = tmp_path / "d.yaml"
    manifest.write_text("kind: Deployment\nname: never\nspec: {model: tiny, context: 8000000, slots: 256}\n")
    said = up.cli("apply", "-f", str(manifest), "--dry-run")
    assert "fit of never: does not fit: " in said.stderr
    assert up.read("Deployment", "never") is None


def test_deleting_a_deployment_lets_its_streams_end(up: Platform) -> None:
    deploy(up, "leaving")
    serves(up, "leaving", "tiny.v1")
    stream = up.openai(retries=0).chat.completions.create(
        model="leaving", messages=[{"role": "user", "content": "go on"}], max_tokens=120, stream=True
    )
    next(stream)
    with up.client() as client:
        client.delete("Deployment", "leaving")
    assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1] == "length"
    until(lambda: up.is_gone("Deployment", "leaving"), "it to be gone")
