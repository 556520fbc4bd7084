"""What the commands of serving change, and when they are content."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.cli.deploy import has_failed, is_served
from atoll.cli.plan import needs, node_rows
from atoll.cli.rollback import promoted, undone
from atoll.cli.scale import scaled
from atoll.core.errors import Conflict, Invalid
from atoll.sdk import wire
from unit.sdk.stand_in import resource

CANARY = {"model": "m.v2", "weight": 0.1}


def deployment(phase: str = "ready", spec: dict[str, Any] | None = None, **status: Any) -> wire.Resource:
    told = {"phase": phase, "reason": "", **status}
    return wire.resource({**resource("d", phase), "spec": {"canary": None, **(spec or {})}, "status": told})


def test_a_number_switches_scaling_off_and_bounds_switch_it_on() -> None:
    assert scaled({"replicas": 1}, 3, None, None, None) == {"replicas": 3, "autoscale": None}
    assert scaled({"replicas": 2}, None, 1, None, 60.0) == {"autoscale": {"min": 1, "max": 2, "idle_s": 60.0}}
    kept = {"replicas": 1, "autoscale": {"min": 0, "max": 4, "queue": 2.0}}
    assert scaled(kept, None, None, 8, None) == {"autoscale": {"min": 0, "max": 8, "queue": 2.0}}


@pytest.mark.parametrize("given", [(None, None, None, None), (1, 0, 2, None)])
def test_scaling_to_nothing_or_to_two_things_is_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(Invalid, match="scale to what"):
        scaled({"replicas": 1}, *given)


def test_a_rollback_ends_the_canary_first_and_else_goes_back() -> None:
    assert undone(deployment(spec={"canary": CANARY})) == {"canary": None}
    before = {"model": "m.v1", "context": 512}
    revisions = [{"revision": "b", "spec": {"model": "m.v2"}}, {"revision": "a", "spec": before}]
    assert undone(deployment(revisions=revisions)) == before
    with pytest.raises(Conflict, match=r"has served nothing before m\.v2"):
        undone(deployment(revisions=revisions[:1], version="m.v2"))


def test_a_canary_is_promoted_to_the_model() -> None:
    assert promoted(deployment(spec={"canary": CANARY})) == {"model": "m.v2", "canary": None}
    with pytest.raises(Conflict, match="has no canary"):
        promoted(deployment())


def test_a_deployment_is_served_when_its_canary_is_too() -> None:
    assert is_served(deployment())
    assert is_served(deployment("asleep"))
    assert not is_served(deployment("degraded"))
    assert not is_served(deployment(spec={"canary": CANARY}, canary_ready=0, version="m.v1", canary_version="m.v2"))
    assert is_served(deployment(spec={"canary": CANARY}, canary_ready=1))
    assert is_served(deployment(spec={"canary": CANARY}, version="m.v2", canary_version="m.v2"))


def test_what_does_not_start_has_failed_though_the_old_serves_on() -> None:
    assert has_failed(deployment("failed"))
    assert has_failed(deployment("degraded", rollout="failed"))
    assert has_failed(deployment("degraded", reason="canary m.v2 does not start: x"))
    assert not has_failed(deployment("degraded", reason="1 of 2 replicas are up to date", rollout="progressing"))


def test_a_plan_is_shown_with_parts_and_nodes() -> None:
    needed = {"total_bytes": 3 << 30, "weights_bytes": 2 << 30, "adapters_bytes": 0, "kv_bytes": 1 << 30}
    needed |= {"kv_per_slot_bytes": 256 << 20, "compute_bytes": 0, "prompt_cache_bytes": 0, "accelerators": 1}
    free = {"cpu": 1.5, "memory_bytes": 1 << 30, "accelerators": 0}
    node = {"node": "a", "fits": True, "replicas_now": 0, "free": free, "reason": "needs 2 cpu, a has free 1.5"}
    plan = wire.ServingPlan("words", needed=needed, nodes=[node], version="m.v1", engine="vllm")
    assert needs(plan) == (
        "m.v1 on vllm needs 3.0 GiB on 1 accelerators: weights 2.0 GiB, context 1.0 GiB, 256.0 MiB of context a slot"
    )
    assert node_rows(plan) == [["a", "yes", "0", "1.0 GiB", "1.5", "0", "needs 2 cpu, a has free 1.5"]]
