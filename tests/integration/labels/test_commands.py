"""`atoll data label` from making a task to its labels, against a real application."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from atoll.cli import data_labels
from atoll.cli.session import Session
from atoll.core.errors import Conflict, Forbidden, Invalid
from atoll.core.store import SetStatus
from atoll.sdk import Client
from running import until

from .conftest import Desk

Run = Callable[..., Result]


class Through(httpx.BaseTransport):
    """Requests of a client, asked through the application of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = {name: value for name, value in request.headers.items() if name in ("authorization", "content-type")}
        path = request.url.raw_path.decode()
        answer = self._desk.client.request(request.method, f"http://door{path}", content=request.read(), headers=sent)
        kept = {"content-type": answer.headers["content-type"]}
        return httpx.Response(answer.status_code, headers=kept, content=answer.content)


@pytest.fixture
def run(desk: Desk, people: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of the group as one of the people."""
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    data_labels.add_to(app)

    def run_as(who: str, *words: str) -> Result:
        client = Client("http://door", people.get(who, desk.admin), "red", transport=Through(desk))
        result = CliRunner().invoke(app, words, obj=Session(_client=client))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run_as


def test_a_task_is_worked_through_from_the_command_line(run: Run, tmp_path: Path) -> None:
    lines = [{"id": f"i{n}", "prompt": "Q", "a": f"one {n}", "b": f"two {n}"} for n in range(2)]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    run("cy", "label", "create", "cmd", "--field", "better:pair", "-f", "stars:rating=1..3", "-n", "2")
    assert run("cy", "label", "add", "cmd", str(path)).output == "2 items added, 0 known already\n"
    assert "a: one 0" in run("ada", "label", "next", "cmd").output
    assert run("ada", "label", "answer", "cmd", "i0", "better=a", "stars=3").output == "i0 is open\n"
    assert "i0 is decided, agreement 1.00" in run("bob", "label", "answer", "cmd", "i0", "better=a", "stars=3").output
    run("ada", "label", "answer", "cmd", "i1", "better=a", "stars=1", "-c", "hard")
    assert "disputed" in run("bob", "label", "answer", "cmd", "i1", "better=b", "stars=1").output
    assert json.loads(run("cy", "label", "disputes", "cmd", "--json").output)[0]["id"] == "i1"
    disputed = run("cy", "label", "disputes", "cmd").output
    assert disputed.startswith("[i1]  agreement 0.00\n  prompt: Q\n")
    assert '{"better": "a", "stars": 1}  # hard' in disputed
    assert "i1 is final" in run("cy", "label", "adjudicate", "cmd", "i1", "better=b", "stars=2").output
    status = run("ada", "label", "status", "cmd").output
    assert "2 items, 1 decided, 1 final, 4 answers" in status
    assert "user:bob" in status
    assert "L1 and L2" in run("ada", "label", "agreement", "cmd").output
    chosen = [
        json.loads(line)["chosen"]
        for line in run("ada", "label", "export", "cmd", "--preferences").output.split("\n")
        if line
    ]
    assert chosen == ["one 0", "two 1"]
    assert len(run("ada", "label", "export", "cmd", "--all").output.splitlines()) == 2
    assert run("ada", "label", "export", "cmd", "--dataset", "cmds", "--no-wait").output.startswith(
        "labelrun/cmd-export-"
    )
    assert run("ada", "label", "prelabel", "cmd", "--model", "m", "--no-wait").output.startswith(
        "labelrun/cmd-prelabel-"
    )


def test_what_is_refused_says_why(run: Run, tmp_path: Path) -> None:
    run("cy", "label", "create", "refusals", "--field", "tone:class=kind,rude")
    with pytest.raises(Forbidden, match="no adjudicator"):
        run("ada", "label", "disputes", "refusals")
    path = tmp_path / "items.jsonl"
    path.write_text('{"key": "k", "text": "t"}\n')
    run("cy", "label", "add", "refusals", str(path))
    with pytest.raises(Invalid, match="'tone' cannot be 'loud'"):
        run("ada", "label", "answer", "refusals", "k", "tone=loud")
    assert "tone=kind|rude" in run("ada", "label", "next", "refusals").stderr
    assert "k is open" in run("ada", "label", "skip", "refusals", "k").output
    assert "no item of refusals is decided" in run("cy", "label", "export", "refusals").stderr
    assert "nothing of refusals is disputed" in run("cy", "label", "disputes", "refusals").stderr


def test_a_run_is_followed_to_what_it_did_and_could_not(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run("cy", "label", "create", "followed", "--field", "tone:class=kind,rude")
    desk.fill("followed", 2)
    scope = desk.centre.store.everything("test")

    def told(phase: str, **more: object) -> str:
        """What the command prints of a pre-labelling whose task ended so."""
        done = threading.Event()

        def end() -> None:
            while not done.wait(0.02):
                for workload in scope.find_all("Workload"):
                    if "followed-prelabel" in workload.name and workload.phase not in ("succeeded", "failed"):
                        with contextlib.suppress(Conflict):  # its controller came between
                            scope.write([SetStatus(workload, workload.status | {"phase": phase} | more)])

        task = threading.Thread(target=end)
        task.start()
        try:
            return run("cy", "label", "prelabel", "followed", "--model", "m").output
        finally:
            done.set()
            task.join()

    errors = [{"item": "k001", "message": "too long"}]
    said = told("succeeded", result={"counts": {"labelled": 1, "failed": 1}, "errors": errors})
    assert "labelled=1, failed=1" in said
    assert "the first that failed: k001: too long" in said
    with pytest.raises(Invalid, match="failed: the model is gone"):
        told("failed", reason="the model is gone")


def test_a_task_is_not_made_twice_and_says_why_it_failed(run: Run, desk: Desk) -> None:
    run("cy", "label", "create", "once", "--field", "tone:class=kind,rude", "--labeller", "ada")
    with pytest.raises(Conflict, match="'once' is there already"):
        run("cy", "label", "create", "once", "--field", "tone:class=kind,rude")
    assert desk.ask("GET", "/projects/red/labeltasks/once")["spec"]["labellers"] == ["ada"]
    run("cy", "label", "create", "sourceless", "--field", "tone:class=kind,rude", "--source", "nowhere")
    until(lambda: desk.ask("GET", "/projects/red/labeltasks/sourceless")["status"]["phase"] == "failed", "no source")
    assert "is failed: there is no dataset 'nowhere'" in run("cy", "label", "status", "sourceless").output


def test_preferences_of_a_task_without_pairs_are_refused(run: Run) -> None:
    run("cy", "label", "create", "pairless", "--field", "tone:class=kind,rude")
    with pytest.raises(Invalid, match="'pairless' asks for no pair"):
        run("cy", "label", "export", "pairless", "--preferences")


def test_a_model_of_quality_is_trained_from_files_alone(run: Run, tmp_path: Path) -> None:
    good, other = tmp_path / "good.jsonl", tmp_path / "other.jsonl"
    good.write_text("\n".join(json.dumps({"text": f"the office opens at {n} on monday"}) for n in range(80)))
    other.write_text("\n".join(json.dumps({"text": f"buy {n} win free click now {n}"}) for n in range(80)))
    out = tmp_path / "m.aqm"
    found = json.loads(
        run("cy", "train-quality", str(good), "--negative", str(other), "--out", str(out), "--json").output
    )
    assert found["figures"]["auc"] == 1.0
    assert out.stat().st_size == found["size_bytes"]
    with pytest.raises(Invalid, match="0 other texts"):
        run("cy", "train-quality", str(good), "--out", str(out))
