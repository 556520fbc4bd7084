"""What a person at a terminal sees: questions, colours, bars, a conversation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from running import Platform

from .conftest import Atoll
from .terminal import Terminal

DATASET = "kind: Dataset\nname: {name}\nspec: {{description: asked}}\n"


def test_a_plan_is_asked_about_and_no_means_no(up: Platform, atoll: Atoll, written: Callable[[str], str]) -> None:
    file = written(DATASET.format(name="asked"))
    with Terminal(up, "apply", "-f", file) as terminal:
        terminal.until("Apply this plan?")
        terminal.type("n\n")
        assert terminal.end() == 1
        assert "\x1b[32m+" in terminal.raw
    atoll("get", "dataset", "asked", code=1)
    with Terminal(up, "apply", "-f", file) as terminal:
        terminal.until("Apply this plan?")
        terminal.type("y\n")
        assert terminal.end() == 0
        assert "1 created" in terminal.text
    atoll("get", "dataset", "asked")


def test_ctrl_c_at_the_question_changes_nothing_and_is_quiet(
    up: Platform, atoll: Atoll, written: Callable[[str], str]
) -> None:
    with Terminal(up, "apply", "-f", written(DATASET.format(name="left"))) as terminal:
        terminal.until("Apply this plan?")
        assert terminal.end(interrupting=True) == 130
        assert "Traceback" not in terminal.text
        assert "error" not in terminal.text
    atoll("get", "dataset", "left", code=1)


def test_tables_have_colours_on_a_terminal(up: Platform) -> None:
    with Terminal(up, "get", "nodes") as terminal:
        assert terminal.end() == 0
        assert "\x1b[32mschedulable" in terminal.raw


def test_a_watch_redraws_in_place(up: Platform, atoll: Atoll) -> None:
    with Terminal(up, "get", "datasets", "-l", "seen=live", "--watch") as terminal:
        terminal.until("NAME")
        atoll("apply", "-f", "-", "--yes", text="kind: Dataset\nname: appears\nlabels: {seen: live}\n")
        terminal.until("appears")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Traceback" not in terminal.text


def test_a_pipeline_shows_bars(up: Platform, written: Callable[[str], str], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = (
        "import time; from pathlib import Path; from atoll.core import task; "
        "task.report_progress('count', 4, 9, 'sheep', loss=0.5); "
        f"[time.sleep(0.1) for _ in iter(Path('{seen}').exists, True)]"
    )
    spec = f"{{roles: [{{resources: {{cpu: 0.05}}, command: ['{{python}}', -c, \"{code}\"]}}]}}"
    step = f"{{name: counting, kind: Workload, spec: {spec}}}"
    file = written(f"kind: Pipeline\nname: barred\nspec:\n  steps:\n    - {step}\n")
    with Terminal(up, "pipeline", "run", "-f", file, "--yes") as terminal:
        terminal.until("/9 sheep  loss 0.5")
        seen.touch()
        assert terminal.end() == 0
        assert "━" in terminal.text
        assert "counting  Workload barred-counting  succeeded" in " ".join(terminal.text.split(" "))


def test_a_conversation_goes_on_until_ctrl_d(up: Platform, atoll: Atoll, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the serving engine is not installed (pip install atoll[serve])")
    from tiny_gguf import write_model

    model = write_model(tmp_path / "talker.gguf")
    atoll("models", "pull", str(model))
    atoll("deploy", "talker", "--context", "512", "--slots", "1", "--cpu", "0.1")
    with Terminal(up, "chat", "talker", "--max-tokens", "3", "--system", "Be brief.") as terminal:
        terminal.until("Ctrl-D ends")
        terminal.type("hello\n")
        terminal.until("+ 3 tokens")
        terminal.type("again\n")
        terminal.until("+ 3 tokens", times=2)
        terminal.type("\x04")
        assert terminal.end() == 0
        assert "\x1b[2m" in terminal.raw
