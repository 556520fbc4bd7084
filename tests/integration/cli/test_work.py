"""Models, deployments, chat and pipelines from the command line, with a real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.cli import follow
from running import Platform, until

from .conftest import Atoll

pytest.importorskip("xllamacpp", reason="the serving engine is not installed (pip install atoll[serve])")
from tiny_gguf import write_model

STEP = """\
    - name: {name}
      kind: Workload
      spec:
        restart: {{policy: never}}
        roles:
          - command: ["{{python}}", "-c", "{code}"]
            resources: {{cpu: 0.05}}
"""
COUNTING = (
    "import time; from pathlib import Path; from atoll.core import task; "
    "task.report_progress('count', 4, 9, 'sheep'); [time.sleep(0.1) for _ in iter(Path('{seen}').exists, True)]"
)
"""Counts until it was seen to."""


def pipeline(name: str, *steps: str) -> str:
    return f"kind: Pipeline\nname: {name}\nspec:\n  steps:\n" + "".join(steps)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny-cli.gguf")


def test_a_model_is_pulled_once_deployed_asked_and_billed(atoll: Atoll, model: Path) -> None:
    pulled = atoll("models", "pull", str(model), "--licence", "MIT")
    assert pulled.stdout.splitlines()[0] == "tiny-cli.v1 is being imported"
    assert pulled.stdout.splitlines()[1].startswith("tiny-cli.v1 is ready: gguf")
    assert "ModelVersion tiny-cli.v1  ready" in pulled.stderr
    again = atoll("models", "pull", f"file:{model}", "--licence", "MIT", "--name", "tiny-cli")
    assert again.stdout.startswith("tiny-cli.v1 is in the library already\n")
    [row] = [line for line in atoll("models", "list").stdout.splitlines() if line.startswith("tiny-cli.v1")]
    assert row.split()[1:4] == ["latest", "ready", "gguf"]

    deployed = atoll("deploy", "tiny-cli", "--context", "512", "--slots", "1", "--cpu", "0.1")
    assert deployed.stdout == "Deployment tiny-cli is ready\n"
    kept = json.loads(atoll("get", "deployment", "tiny-cli", "-o", "json").stdout)
    atoll("deploy", "tiny-cli", "--replicas", "1", "--no-wait")
    assert json.loads(atoll("get", "deployment", "tiny-cli", "-o", "json").stdout)["spec"] == kept["spec"]

    answer = atoll("chat", "tiny-cli", "hello", "--max-tokens", "4")
    assert answer.stderr.startswith("20 + 4 tokens") or " + 4 tokens" in answer.stderr
    assert " + 3 tokens" in atoll("chat", "tiny-cli", "--max-tokens", "3", text="from a pipe").stderr
    nearest = atoll("chat", "tiny-clo", "hello", code=1)
    assert "tiny-cli" in nearest.stderr

    def billed() -> bool:
        rows = json.loads(atoll("usage", "--by", "model", "-o", "json").stdout)["rows"]
        return [row["completion_tokens"] for row in rows if row["model"] == "tiny-cli"] == [7]

    until(billed, "the statement to say 7 tokens")
    table = atoll("usage").stdout.splitlines()
    assert table[0].split() == ["KEY", "MODEL", "REQUESTS", "PROMPT", "COMPLETION", "CACHED", "COST"]
    assert "log of Deployment tiny-cli" in atoll("logs", "tiny-cli", "--tail", "1").stderr


def test_a_wrong_checksum_fails_the_import_with_its_reason(atoll: Atoll, model: Path) -> None:
    wrong = atoll("models", "pull", str(model), "--name", "wrong", "--sha256", f"{model.name}={'0' * 64}", code=1)
    assert "error: import of wrong.v1 failed: " in wrong.stderr
    assert "hint: atoll describe modelversion wrong.v1" in wrong.stderr
    assert atoll("models", "pull", str(model), "--name", "wrong", "--no-wait").stdout.startswith("wrong.v2 ")


def test_a_model_that_is_not_there_fails_the_deployment_with_the_nearest(atoll: Atoll) -> None:
    failed = atoll("deploy", "no-such-model", "--timeout", "60", code=1)
    assert "there is no model 'no-such-model'" in failed.stderr
    atoll("delete", "deployment", "no-such-model", "--wait")


def test_a_pipeline_is_followed_to_its_end(
    atoll: Atoll, written: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, show = COUNTING.format(seen=tmp_path / "seen"), follow.Lines.show

    def shown(board: follow.Lines, label: str, phase: str, reason: str = "", progress: Any = None) -> None:
        show(board, label, phase, reason, progress)
        if progress:
            (tmp_path / "seen").touch()

    monkeypatch.setattr(follow.Lines, "show", shown)
    file = written(pipeline("good", STEP.format(name="first", code=counting), STEP.format(name="second", code="1")))
    refused = atoll("pipeline", "run", "-f", file, code=2)
    assert "--yes" in refused.stderr
    done = atoll("pipeline", "run", "-f", file, "--yes")
    assert "first  running  count  " in done.stderr
    assert "/9 sheep" in done.stderr
    table = done.stdout[done.stdout.index("STEP") :].splitlines()
    assert [line.split()[:4] for line in table[1:]] == [
        ["first", "Workload", "good-first", "succeeded"],
        ["second", "Workload", "good-second", "succeeded"],
    ]
    assert "nothing to change" in atoll("pipeline", "run", "-f", file).stdout
    assert "Pipeline good is succeeded" in atoll("pipeline", "show", "good").stdout


def test_a_failed_step_ends_the_run_with_its_reason_and_is_tried_again(
    atoll: Atoll, written: Callable[[str], str], tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    code = f"import os; print('no flag'); raise SystemExit(0 if os.path.exists('{flag}') else 5)"
    file = written(pipeline("flaky", STEP.format(name="try", code=code), STEP.format(name="rest", code="1")))
    failed = atoll("pipeline", "run", "-f", file, "--yes", code=1)
    assert "error: pipeline flaky failed at step try: " in failed.stderr
    assert "no flag" in failed.stderr
    assert "hint: atoll describe workload flaky-try" in failed.stderr
    assert "waits for try" in failed.stdout
    flag.touch()
    again = atoll("pipeline", "run", "-f", file, "--yes")
    assert "spec.run  0 -> 1" in again.stdout
    assert atoll("pipeline", "run", "-f", file).stdout.count("succeeded") == 2


def test_a_file_without_one_pipeline_is_refused(atoll: Atoll, written: Callable[[str], str]) -> None:
    refused = atoll("pipeline", "run", "-f", written("kind: Dataset\nname: d\n"), "--yes", code=2)
    assert "holds 0 pipelines, not one" in refused.stderr


def test_a_name_that_two_kinds_share_leads_logs_to_the_deployment_first(atoll: Atoll, up: Platform) -> None:
    assert up.read("Model", "tiny-cli") is not None
    assert "log of Deployment tiny-cli" in atoll("logs", "tiny-cli", "--tail", "1").stderr
