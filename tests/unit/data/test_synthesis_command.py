"""`atoll data synthesise`: its help, and what it says of a run."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from atoll.cli import data_synthesis
from atoll.cli.data_synthesis import summary


def test_the_command_explains_itself() -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    data_synthesis.add_to(app)
    shown = CliRunner().invoke(app, ["synthesise", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}, color=False)
    assert shown.exit_code == 0
    assert "atoll data synthesise handbook --model assistant" in shown.output


def test_a_run_is_summed_up_with_the_reasons_for_what_was_left_out() -> None:
    status = {
        "dataset_version": "book-qa.v1",
        "reason": "the budget of 500 tokens is used up",
        "counts": {"qa_train": 7, "qa_heldout": 2, "asked": 12, "tokens": 480},
        "funnel": [{"rule": "unsupported", "dropped": 1, "samples": []}, {"rule": "not_asked", "dropped": 2}],
    }
    assert summary(status) == [
        "DatasetVersion book-qa.v1: 9 of 12 pairs kept, 2 of them held out; 480 tokens",
        "ended early: the budget of 500 tokens is used up",
        "      1 unsupported",
        "      2 not_asked",
    ]
