"""The verbs every kind shares, against a real platform."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest
import yaml

from running import ATOLL, Platform, until

from .conftest import Atoll

WORKLOAD = """\
kind: Workload
name: {name}
labels: {{team: {team}}}
spec:
  restart: {{policy: never}}
  roles:
    - command: ["{{python}}", "-u", "-c", "{code}"]
      resources: {{cpu: 0.05}}
"""

Written = Callable[[str], str]


def workload(name: str, code: str = "print(1)", team: str = "web") -> str:
    return WORKLOAD.format(name=name, code=code, team=team)


def test_status_shows_the_node_and_the_counts(atoll: Atoll, up: Platform) -> None:
    until(lambda: "schedulable" in atoll("status").stdout, "the node to be looked at")
    text = atoll("status").stdout
    assert up.address in text
    assert "schedulable" in text
    told = json.loads(atoll("status", "-o", "json").stdout)
    assert told["counts"]["Node"] == {"schedulable": 1}


def test_apply_shows_the_plan_and_refuses_when_nobody_can_agree(atoll: Atoll, written: Written) -> None:
    file = written(workload("planned"))
    refused = atoll("apply", "-f", file, code=2)
    assert "+  Workload default/planned" in refused.stdout
    assert "plan: 1 to create" in refused.stdout
    assert "--yes" in refused.stderr
    atoll("apply", "-f", file, "--dry-run")
    atoll("get", "workload", "planned", code=1)
    assert "1 created" in atoll("apply", "-f", file, "--yes").stdout
    assert "nothing to change" in atoll("apply", "-f", file).stdout
    file = written(workload("planned", team="api"))
    changed = atoll("apply", "-f", file, "--yes").stdout
    assert 'labels.team  "web" -> "api"' in changed
    assert "1 changed" in changed


def test_apply_reads_standard_input(atoll: Atoll) -> None:
    assert "1 created" in atoll("apply", "-f", "-", "--yes", text=workload("from-input")).stdout
    wrong = atoll("apply", "-f", "-", "--yes", text="kind: Workload\nnam: x\n", code=2)
    assert wrong.stderr.startswith(
        "error: standard input:2: a manifest has no field 'nam' (value: 'x')\nhint: did you mean"
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("policy: never", "polcy: never", 5, ["Workload has no field spec.restart.polcy", "'never'", "'policy'"]),
        ("policy: never", "policy: nevr", 5, ["spec.restart.policy cannot be 'nevr'", "'on_failure'"]),
        ("cpu: 0.05", "cpu: lots", 8, ["spec.roles.0.resources.cpu cannot be 'lots'", "number"]),
        ("cpu: 0.05", "cpu: -1", 8, ["spec.roles.0.resources.cpu cannot be -1", "greater than or equal to 0"]),
        ("spec:\n", "spec:\n  roels: []\n", 5, ["has no field spec.roels", "[]", "'roles'"]),
        ("kind: Workload", "kind: Workloda", 1, ["there is no kind 'Workloda'", "workloads"]),
        ("kind: Workload", "kind: Task", 1, ["made by the platform"]),
        ("name: wrong", "name: Wrong_", 2, ["'Wrong_' cannot be a name", "a-z"]),
        ("- command:", "- env: {} #", 7, ["Workload needs spec.roles.0.command", "atoll explain"]),
    ],
)
def test_a_wrong_manifest_names_file_line_field_value_and_what_is_valid(
    old: str, new: str, line: int, words: list[str], atoll: Atoll, written: Written
) -> None:
    good = workload("right")
    file = written(f"{good}---\n{workload('wrong').replace(old, new, 1)}")
    result = atoll("apply", "-f", file, "--yes", code=4 if new.endswith("Task") else 2)
    assert result.stderr.startswith(f"error: {file}:{good.count(chr(10)) + 1 + line}: ")
    for word in words:
        assert word in result.stderr
    atoll("get", "workload", "right", code=1)


def test_get_shows_tables_and_data(atoll: Atoll) -> None:
    atoll("apply", "-f", "-", "--yes", text=workload("shown", team="shown"))
    table = atoll("get", "workloads", "-l", "team=shown").stdout.splitlines()
    assert table[0].split() == ["NAME", "PHASE", "EPOCH", "NODES", "AGE", "REASON"]
    assert [row.split()[0] for row in table[1:]] == ["shown"]
    assert "LABELS" in atoll("get", "workloads", "-o", "wide").stdout
    one = json.loads(atoll("get", "workload", "shown", "-o", "json").stdout)
    assert (one["kind"], one["name"], one["labels"]) == ("Workload", "shown", {"team": "shown"})
    many = yaml.safe_load(atoll("get", "workloads", "-l", "team=shown", "-o", "yaml").stdout)
    assert [item["name"] for item in many["items"]] == ["shown"]


def test_what_get_prints_as_yaml_can_be_edited_and_applied(atoll: Atoll) -> None:
    atoll("apply", "-f", "-", "--yes", text=workload("edited"))
    text = atoll("get", "workload", "edited", "-o", "yaml").stdout
    assert "nothing to change" in atoll("apply", "-f", "-", text=text).stdout
    edited = text.replace("stop_grace_s: 10.0", "stop_grace_s: 3.0")
    assert "spec.stop_grace_s  10.0 -> 3.0" in atoll("apply", "-f", "-", "--yes", text=edited).stdout


def test_what_is_not_there_is_said(atoll: Atoll) -> None:
    assert "no deployments" in atoll("get", "deployments", "-l", "none=such").stderr
    assert "nearest: workloads" in atoll("get", "workloadz", code=1).stderr
    assert "'nothing'" in atoll("get", "workload", "nothing", code=1).stderr
    assert "there is no project 'nowhere'" in atoll("get", "workloads", "-p", "nowhere", code=1).stderr


def test_describe_tells_why_it_failed(atoll: Atoll, up: Platform) -> None:
    text = workload("dying", code="print('my last words'); raise SystemExit(3)")
    atoll("apply", "-f", "-", "--yes", text=text)
    up.reaches("Workload", "dying", "failed")
    page = atoll("describe", "workload", "dying").stdout
    assert page.startswith("Workload default/dying\n  phase       failed\n")
    assert "  Task dying-" in page.partition("Owns")[2]
    assert "Failed" in page.partition("Events")[2]
    assert page.partition("Last log lines of Task dying-")[2].strip().endswith("my last words")


def test_logs_end_with_the_task_and_begin_at_the_tail(atoll: Atoll, up: Platform) -> None:
    code = "import time; [(print('line', i), time.sleep(0.1)) for i in range(20)]"
    atoll("apply", "-f", "-", "--yes", text=workload("speaking", code=code))
    up.reaches("Workload", "speaking", "running", "succeeded")
    followed = atoll("logs", "workload", "speaking", "-f")
    assert followed.stdout.splitlines() == [f"line {i}" for i in range(20)]
    tail = atoll("logs", "speaking", "--tail", "2")
    assert tail.stdout == "line 18\nline 19\n"
    assert "log of Workload speaking" in tail.stderr
    assert "runs tasks" in atoll("logs", "nothing-of-the-kind", code=1).stderr


def test_delete_waits_until_the_task_is_gone(atoll: Atoll, up: Platform) -> None:
    atoll("apply", "-f", "-", "--yes", text=workload("long", code="import time; time.sleep(600)"))
    up.reaches("Workload", "long", "running")
    assert atoll("delete", "workload", "long", "--wait", "--timeout", "120").stdout == "Workload long is gone\n"
    assert not [t for t in up.tasks() if t.spec["workload"] == "long"]
    atoll("delete", "workload", "long", code=1)


def test_events_tell_what_happened(atoll: Atoll, up: Platform) -> None:
    atoll("apply", "-f", "-", "--yes", text=workload("eventful"))
    up.reaches("Workload", "eventful", "succeeded")
    lines = atoll("events", "workload", "eventful").stdout.splitlines()
    assert lines[0].split() == ["AGE", "RESOURCE", "REASON", "BY", "MESSAGE"]
    assert {"Created", "Admitted", "Succeeded"} <= {line.split()[3] for line in lines[1:]}
    told = json.loads(atoll("events", "workloads", "--limit", "1", "-o", "json").stdout)
    assert len(told["events"]) == 1


def test_explain_asks_the_server(atoll: Atoll) -> None:
    result = atoll("explain", "workload.spec.roles")
    assert result.stdout.startswith("Workload.spec.roles: list of RoleSpec\n")
    assert result.stderr == ""


class Watching:
    """`atoll get … --watch` beside the test."""

    def __init__(self, up: Platform, *words: str) -> None:
        command = [ATOLL, "get", *words, "--watch"]
        self.process = subprocess.Popen(
            command, env=up.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(60)
        self._reader.join(60)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def line_with(self, word: str) -> str:
        """The next line that holds `word`."""
        passed = []
        while True:
            try:
                line = self.lines.get(timeout=90)
            except queue.Empty:
                pytest.fail(f"no line with {word!r}; passed: {passed}")
            if word in line:
                return line
            passed.append(line)

    def interrupt(self) -> tuple[int, str]:
        """Exit code and standard error after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)


def test_a_watch_shows_every_change_and_ctrl_c_ends_it_quietly(atoll: Atoll, up: Platform) -> None:
    with Watching(up, "workloads", "-l", "team=watched") as watching:
        watching.line_with("NAME")
        atoll("apply", "-f", "-", "--yes", text=workload("watched", team="watched"))
        assert watching.line_with("succeeded").split()[0] == "watched"
        atoll("delete", "workload", "watched")
        assert watching.line_with("gone").split()[0] == "watched"
        assert watching.interrupt() == (130, "")


def test_a_watch_outlives_the_server(atoll: Atoll, up: Platform) -> None:
    with Watching(up, "workloads", "-l", "team=survivor", "-o", "json") as watching:
        atoll("apply", "-f", "-", "--yes", text=workload("before", team="survivor"))
        assert json.loads(watching.line_with('"before"'))["type"] == "put"
        up.kill("server")
        until(lambda: up.read("Workload", "before"), "the server to be back")
        atoll("apply", "-f", "-", "--yes", text=workload("after", team="survivor"))
        assert json.loads(watching.line_with('"after"'))["type"] == "put"
        assert watching.interrupt()[0] == 130
