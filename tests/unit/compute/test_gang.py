"""The life of a workload, decided from its tasks as reported."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.compute.gang import Decision, backoff_left_s, decide
from atoll.compute.resources import TASK, WORKLOAD
from atoll.core.resources import Resource

NOW = 1000.0


def resource(kind: str, name: str, spec: dict[str, Any], status: dict[str, Any], **fields: Any) -> Resource:
    base: dict[str, Any] = {"version": 1, "generation": 1, "labels": {}, "owner": None, "deleting_at": None}
    base |= {"created_at": 0.0, "updated_at": 0.0, "uid": name}
    return Resource(kind=kind, project="p", name=name, spec=spec, status=status, **(base | fields))


def workload(phase: str = "running", epoch: int = 1, **fields: Any) -> Resource:
    restart = fields.pop("restart", {})
    status = {"phase": phase, "epoch": epoch, **fields.pop("status", {})}
    spec = WORKLOAD.parse_spec(
        {"roles": [{"command": ["x"]}], "restart": restart, "suspended": fields.pop("suspended", False)}
    )
    return resource("Workload", "w", spec, status, **fields)


def task(rank: int, phase: str, epoch: int = 1, stop: bool = False, **status: Any) -> Resource:
    spec: dict[str, Any] = {"node": "n", "epoch": epoch, "workload": "w", "workload_uid": "w", "role": "main"}
    spec |= {"index": rank, "rank": rank, "world_size": 2, "command": ["x"], "stop": stop}
    return resource("Task", f"t{epoch}-{rank}", TASK.parse_spec(spec), {"phase": phase, **status})


def phase_of(decision: Decision) -> str:
    return str(decision.status["phase"])


def test_a_new_workload_waits_for_its_place() -> None:
    assert phase_of(decide(workload("pending", 0), [], NOW)) == "pending"


def test_a_gang_is_starting_until_all_its_ranks_run() -> None:
    decision = decide(workload("starting"), [task(0, "running"), task(1, "pending")], NOW)
    assert (phase_of(decision), decision.status["reason"]) == ("starting", "1 of 2 tasks run")
    decision = decide(workload("starting"), [task(0, "running"), task(1, "running")], NOW)
    assert (phase_of(decision), decision.reason, decision.stop) == ("running", "Running", ())


def test_a_gang_of_which_some_ranks_have_finished_still_runs() -> None:
    decision = decide(workload("running"), [task(0, "running"), task(1, "succeeded")], NOW)
    assert (phase_of(decision), decision.reason) == ("running", "")


def test_rank_0_speaks_for_the_gang() -> None:
    first = task(0, "running", progress={"done": 3}, endpoint={"url": "u"})
    status = decide(workload(), [task(1, "running", progress={"done": 9}), first], NOW).status
    assert (status["progress"], status["endpoint"]) == ({"done": 3}, {"url": "u"})


def test_a_gang_whose_ranks_all_ended_well_succeeded_with_the_result_of_rank_0() -> None:
    tasks = [task(0, "succeeded", result={"loss": 1}), task(1, "succeeded", result={})]
    decision = decide(workload(), tasks, NOW)
    assert (phase_of(decision), decision.reason) == ("succeeded", "Succeeded")
    assert (decision.status["result"], decision.status["ended_at"]) == ({"loss": 1}, NOW)


@pytest.mark.parametrize("end", ["failed", "lost"])
def test_a_rank_that_ends_badly_takes_the_others_with_it(end: str) -> None:
    living = task(0, "running")
    decision = decide(workload(), [living, task(1, end, reason="exited with code 1", log_tail=["boom"])], NOW)
    assert (phase_of(decision), decision.stop) == ("stopping", (living,))
    assert decision.status["reason"] == "main[1] exited with code 1: boom"
    again = decide(workload("stopping"), [task(0, "stopping", stop=True), task(1, end)], NOW)
    assert (phase_of(again), again.stop) == ("stopping", ())


def test_a_gang_does_not_start_again_while_a_rank_of_any_epoch_lives() -> None:
    tasks = [task(0, "failed", epoch=2), task(1, "failed", epoch=2), task(1, "running", epoch=1)]
    decision = decide(workload(epoch=2), tasks, NOW)
    assert phase_of(decision) == "stopping"
    assert decision.stop == (tasks[2],)


def test_a_gang_that_failed_waits_longer_each_time() -> None:
    waits = []
    for restarts in range(8):
        failed = workload(status={"restarts": restarts, "restarts_total": restarts})
        decision = decide(failed, [task(0, "failed", reason="exited with code 1")], NOW)
        assert (phase_of(decision), decision.reason) == ("pending", "Restarting")
        assert decision.status["restarts"] == decision.status["restarts_total"] == restarts + 1
        waits.append(decision.status["retry_at"] - NOW)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert "starting again in 30.0 s" in decision.status["reason"]


def test_a_gang_fails_for_good_when_its_restarts_are_used_up() -> None:
    used_up = workload(restart={"limit": 3}, status={"restarts": 3})
    decision = decide(used_up, [task(0, "failed", reason="exited with code 1", log_tail=["a", "b"])], NOW)
    assert (phase_of(decision), decision.reason) == ("failed", "Failed")
    assert decision.status["reason"] == "main[0] exited with code 1: b after 3 restarts"
    assert decision.status["log_tail"] == ["a", "b"]


def test_failures_before_a_stable_run_are_forgotten() -> None:
    ran = workload(restart={"limit": 3, "stable_s": 60}, status={"restarts": 3, "restarts_total": 7})
    decision = decide(ran, [task(0, "failed", started_at=NOW - 60)], NOW)
    assert phase_of(decision) == "pending"
    assert (decision.status["restarts"], decision.status["restarts_total"]) == (1, 8)
    assert phase_of(decide(ran, [task(0, "failed", started_at=NOW - 59)], NOW)) == "failed"


def test_no_restarts_are_none_but_for_a_service_without_end() -> None:
    end = [task(0, "failed")]
    assert phase_of(decide(workload(restart={"policy": "on_failure", "limit": 0}), end, NOW)) == "failed"
    assert phase_of(decide(workload(restart={"policy": "never", "limit": 5}), end, NOW)) == "failed"
    endless = workload(restart={"policy": "always", "limit": 0}, status={"restarts": 1000})
    assert phase_of(decide(endless, end, NOW)) == "pending"


def test_a_permanent_error_is_not_tried_again_and_keeps_its_type() -> None:
    error = {"code": "invalid", "message": "no such recipe", "hint": "see explain"}
    decision = decide(workload(), [task(0, "failed", exit_code=3, result={"error": error})], NOW)
    assert (phase_of(decision), decision.status["error"]) == ("failed", error)
    assert decision.status["reason"] == "no such recipe (see explain)"


def test_the_rank_that_failed_for_good_is_to_blame_whatever_its_number() -> None:
    """Rank 0 was only stopped because rank 1 had failed; its signal must not hide the permanent error."""
    error = {"message": "no such recipe"}
    stopped = task(0, "failed", stop=True, signal=15, reason="stopped")
    decision = decide(workload("stopping"), [stopped, task(1, "failed", exit_code=3, result={"error": error})], NOW)
    assert (phase_of(decision), decision.status["reason"]) == ("failed", "no such recipe")


def test_the_rank_nobody_had_asked_to_stop_is_to_blame() -> None:
    stopped = task(0, "failed", stop=True, signal=15, reason="stopped")
    decision = decide(workload("stopping"), [stopped, task(1, "failed", reason="exited with code 1")], NOW)
    assert decision.status["reason"].startswith("main[1] exited with code 1")


def test_a_gang_that_was_only_asked_to_stop_starts_again_without_blame() -> None:
    """It was suspended and resumed before its last task ended, or its node was sent away."""
    tasks = [task(rank, "failed", stop=True, signal=15, reason="stopped") for rank in range(2)]
    decision = decide(workload("stopping", status={"restarts": 2}), tasks, NOW)
    assert phase_of(decision) == "pending"
    assert decision.status["restarts"] == 2
    assert "retry_at" not in decision.status


def test_a_service_that_ends_well_starts_again() -> None:
    always = workload(restart={"policy": "always"})
    living = task(0, "running")
    assert decide(always, [living, task(1, "succeeded")], NOW).stop == (living,)
    decision = decide(always, [task(0, "succeeded"), task(1, "succeeded")], NOW)
    assert (phase_of(decision), decision.status["endpoint"]) == ("pending", {})


@pytest.mark.parametrize("fields", [{"suspended": True}, {"deleting_at": 5.0}])
def test_what_is_suspended_or_deleted_stops_all_its_tasks(fields: dict[str, Any]) -> None:
    tasks = [task(0, "running"), task(1, "pending"), task(0, "stopping", epoch=0, stop=True), task(1, "failed", 0)]
    decision = decide(workload(**fields), tasks, NOW)
    assert (phase_of(decision), decision.stop) == ("stopping", (tasks[0], tasks[1]))
    assert decision.status["reason"] == "3 tasks are ending"


def test_what_was_suspended_waits_and_says_so() -> None:
    decision = decide(workload("stopping", suspended=True), [task(0, "failed", stop=True)], NOW)
    assert (phase_of(decision), decision.status["reason"]) == ("pending", "suspended")


def test_what_ended_stays_ended() -> None:
    for phase in ("succeeded", "failed"):
        for fields in ({}, {"suspended": True}, {"deleting_at": 1.0}):
            ended = workload(phase, **fields)
            decision = decide(ended, [task(0, "failed")], NOW)
            assert (decision.status, decision.stop) == (ended.status, ())


def test_a_wall_clock_set_back_does_not_hold_a_gang_for_longer_than_its_longest_wait() -> None:
    waiting = workload("pending", status={"retry_at": NOW + 10})
    assert backoff_left_s(waiting, NOW) == 10
    assert backoff_left_s(waiting, NOW + 10) == 0
    assert backoff_left_s(waiting, NOW - 3600) == 0
    assert backoff_left_s(workload("pending"), NOW) == 0


def test_a_decision_changes_nothing_it_was_given() -> None:
    given = workload()
    before = dict(given.status)
    decide(given, [task(0, "failed"), task(1, "running")], NOW)
    assert given.status == before


def test_a_wait_that_is_over_but_for_rounding_is_over() -> None:
    """Else the queue would be looked at again and again without time passing."""
    assert backoff_left_s(workload("pending", status={"retry_at": NOW + 1e-9}), NOW) == 0
