"""The plan of a node: what is started, stopped, refused and forgotten, and in which order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from atoll.compute.agent.tasks import Action, Forget, Refuse, Start, Stop, Wanted, plan, wanted
from atoll.compute.runtime.base import TaskReport, TaskSpec


def spec(uid: str, epoch: int = 1, index: int = 0, workload_uid: str = "w") -> TaskSpec:
    return TaskSpec(uid, epoch, ("true",), workload_uid=workload_uid, role="worker", index=index)


def report(of: TaskSpec, state: str = "running") -> TaskReport:
    return TaskReport(of.uid, of.epoch, state, of.slot)  # type: ignore[arg-type]


def test_a_wanted_task_that_is_not_here_is_started() -> None:
    assert plan([Wanted(spec("a"))], []) == [Start(spec("a"))]


def test_a_task_that_is_here_is_left_alone_whatever_became_of_it() -> None:
    for state in ("starting", "running", "stopping", "succeeded", "failed"):
        assert plan([Wanted(spec("a"))], [report(spec("a"), state)]) == []


def test_a_task_with_a_problem_is_used_up_and_says_why_but_left_alone_once_it_runs() -> None:
    sent = {"uid": "a", "epoch": 1, "command": ["true"], "workload_uid": "w", "role": "worker", "problem": "no secret"}
    read = wanted(sent)
    assert read is not None
    assert plan([read], []) == [Refuse(spec("a"), "cannot start: no secret")]
    assert plan([read], [report(spec("a"))]) == []


def test_a_task_to_be_stopped_is_stopped_as_long_as_it_lives() -> None:
    assert plan([Wanted(spec("a"), stop=True)], [report(spec("a"))]) == [Stop("a", "asked to stop")]
    assert plan([Wanted(spec("a"), stop=True)], [report(spec("a"), "failed")]) == []


def test_a_task_to_be_stopped_before_it_was_started_never_starts_and_says_so() -> None:
    assert plan([Wanted(spec("a"), stop=True)], []) == [Refuse(spec("a"), "stopped before it was started")]


def test_a_task_nobody_wants_is_stopped_once_the_centre_has_heard_of_it() -> None:
    assert plan([], [report(spec("a"))]) == []
    assert plan([], [report(spec("a"))], reported={"a"}) == [Stop("a", "no longer wanted on this node")]


def test_a_newer_epoch_waits_until_the_older_has_ended() -> None:
    old, new = spec("old", 1), spec("new", 2)
    assert plan([Wanted(new)], [report(old)]) == [Stop("old", "replaced by epoch 2")]
    assert plan([Wanted(new)], [report(old, "stopping")]) == [Stop("old", "replaced by epoch 2")]
    assert plan([Wanted(new)], [report(old, "failed")]) == [Start(new)]


def test_an_older_epoch_never_starts_beside_a_newer_one() -> None:
    old, new = spec("old", 1), spec("new", 2)
    assert plan([Wanted(old), Wanted(new)], [report(new)]) == [Refuse(old, "fenced: epoch 2 is known here, 1 is older")]
    assert plan([Wanted(old), Wanted(new)], []) == [
        Refuse(old, "fenced: epoch 2 is known here, 1 is older"),
        Start(new),
    ]


def test_epochs_of_different_indices_do_not_wait_for_each_other() -> None:
    assert plan([Wanted(spec("b", 2, index=1))], [report(spec("a", 1, index=0))]) == [Start(spec("b", 2, index=1))]


def test_tasks_without_a_workload_are_not_fenced() -> None:
    one, two = spec("a", 1, workload_uid=""), spec("b", 2, workload_uid="")
    assert plan([Wanted(one), Wanted(two)], []) == [Start(one), Start(two)]


def test_two_tasks_for_one_place_do_not_both_start() -> None:
    one, two = spec("a", 1), spec("b", 1)
    assert plan([Wanted(one), Wanted(two)], []) == [Start(one)]
    assert plan([Wanted(one), Wanted(two)], [report(one)]) == [Refuse(two, "another task has the place of epoch 1")]


def test_an_ended_task_is_forgotten_and_a_living_one_is_stopped_first() -> None:
    assert plan([], [report(spec("a"), "failed")], forget={"a", "elsewhere"}) == [Forget("a")]
    assert plan([], [report(spec("a"))], forget={"a"}) == [Stop("a", "no longer wanted on this node")]


def test_a_forgotten_task_never_starts_again() -> None:
    assert plan([Wanted(spec("a"))], [], forgotten={"a"}) == []


def test_a_task_that_cannot_be_read_is_refused_with_the_reason() -> None:
    broken = wanted({"uid": "a", "epoch": 3, "command": []})
    assert broken is not None
    (action,) = plan([broken], [])
    assert isinstance(action, Refuse)
    assert action.spec.uid == "a"
    assert "is not a list of words" in action.reason


def test_a_task_with_a_name_that_leads_out_of_its_folder_is_ignored() -> None:
    for uid in ("../other", "", ".hidden", "a/b", None):
        assert wanted({"uid": uid, "command": ["true"]}) is None


class Node(RuleBasedStateMachine):
    """A node under a centre that starts epochs, stops tasks, loses track, and lets tasks end at any time."""

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, Wanted] = {}
        self.here: dict[str, TaskReport] = {}
        self.forget: set[str] = set()
        self.forgotten: set[str] = set()
        self.started: list[str] = []
        self.made = 0

    @rule(target=tasks, index=st.integers(0, 1), epoch=st.integers(1, 4))
    def want(self, index: int, epoch: int) -> str:
        self.made += 1
        uid = f"t{self.made}"
        self.wanted[uid] = Wanted(spec(uid, epoch, index))
        return uid

    @rule(uid=tasks)
    def ask_to_stop(self, uid: str) -> None:
        if uid in self.wanted:
            self.wanted[uid] = replace(self.wanted[uid], stop=True)

    @rule(uid=consumes(tasks))
    def drop(self, uid: str) -> None:
        self.wanted.pop(uid, None)
        self.forget.add(uid)

    @rule(uid=tasks, state=st.sampled_from(["succeeded", "failed"]))
    def end_by_itself(self, uid: str, state: str) -> None:
        if uid in self.here and not self.here[uid].is_ended:
            self.here[uid] = replace(self.here[uid], state=state)

    @rule()
    def agent_acts(self) -> None:
        for action in self.planned():
            self.carry_out(action)

    def planned(self) -> list[Action]:
        here = list(self.here.values())
        return plan(
            list(self.wanted.values()),
            here,
            forget=frozenset(self.forget),
            reported=frozenset(self.here),
            forgotten=frozenset(self.forgotten),
        )

    def carry_out(self, action: Action) -> None:
        match action:
            case Start(task):
                assert task.uid not in self.started, "started twice"
                self.started.append(task.uid)
                self.here[task.uid] = report(task)
            case Refuse(task, _):
                assert task.uid not in self.here
                self.here[task.uid] = report(task, "failed")
            case Stop(uid, _):
                self.here[uid] = replace(self.here[uid], state="stopping")
            case Forget(uid):
                assert self.here.pop(uid).is_ended, "forgot a living task"
                self.forgotten.add(uid)

    @invariant()
    def one_epoch_of_a_slot_lives(self) -> None:
        slots = [r.slot for r in self.here.values() if not r.is_ended]
        assert len(slots) == len(set(slots))

    def teardown(self) -> None:
        """When tasks obey and nothing else changes, the node comes to rest where the centre wants it."""
        for _ in range(3 * len(self.wanted) + 10):
            actions = self.planned()
            if not actions:
                break
            for action in actions:
                self.carry_out(action)
            for uid, of in self.here.items():
                if of.state == "stopping":
                    self.here[uid] = replace(of, state="failed")
        assert self.planned() == []
        living = {uid for uid, of in self.here.items() if not of.is_ended}
        assert living <= {uid for uid, task in self.wanted.items() if not task.stop}
        assert set(self.wanted) - self.forgotten <= set(self.here)


Node.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestNode = Node.TestCase
