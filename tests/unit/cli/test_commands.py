"""The command line itself: help everywhere, errors in two lines, exit codes, and little to load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from atoll import __version__
from atoll.cli.exits import BAD_INPUT, UNREACHABLE, code_of
from atoll.cli.main import app
from atoll.core.errors import AtollError, Conflict, Forbidden, Invalid, NotFound, TooLarge, Unauthorized, Unavailable
from atoll.sdk.credentials import Credentials, write_context
from atoll.sdk.errors import TimedOut, Unreachable

NOWHERE = "http://127.0.0.1:9"


def every_command(group: typer.Typer = app, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    own = [(*words, str(c.name)) for c in group.registered_commands]
    nested = [
        n
        for g in group.registered_groups
        if g.typer_instance
        for n in every_command(g.typer_instance, (*words, str(g.name)))
    ]
    return own + nested


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_context(tmp_path, Credentials(NOWHERE, "default", "sk-atoll-x"))
    return tmp_path


@pytest.fixture
def atoll(home: Path) -> CliRunner:
    gone = {name: None for name in os.environ if name.startswith("ATOLL_")}
    return CliRunner(env={**gone, "ATOLL_HOME": str(home), "COLUMNS": "200"})


def test_the_commands_are_those_of_the_handbook() -> None:
    words = {" ".join(c) for c in every_command()}
    assert words == {
        *("up", "server", "agent", "gateway", "status", "version"),
        *("apply", "get", "describe", "delete", "logs", "events", "explain"),
        *("models pull", "models list", "deploy", "chat", "pipeline run", "pipeline show"),
        *("data curate", "data funnel", "data preview", "data recipe", "data columns", "data describe"),
        *("data diff", "data lineage"),
        *("data export", "data import", "data tag", "data erase", "data train-quality", "data synthesise"),
        *("data label create", "data label add", "data label next", "data label answer", "data label skip"),
        *("data label status", "data label agreement", "data label disputes", "data label adjudicate"),
        *("data label prelabel", "data label export"),
        *("plan serving", "scale", "rollback", "promote"),
        *("keys create", "keys list", "keys revoke", "usage"),
        *("keys limit", "keys rotate", "keys rotate-uploads", "members add", "members list", "members remove"),
        *("users create", "users list", "users disable", "users enable"),
        *("secrets set", "secrets list", "secrets remove"),
        *("budgets set", "budgets list", "budgets top-up", "budgets redeem", "budgets history"),
        *("vouchers create", "vouchers list", "vouchers cancel", "statement", "gateways list", "gateways forget"),
    }


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_says_its_purpose_and_gives_an_example(words: tuple[str, ...], atoll: CliRunner) -> None:
    result = atoll.invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"atoll {' '.join(words)}" in result.stdout.partition("Examples:")[2]
    assert "--project" in result.stdout


def test_global_options_hold_before_and_after_the_command(atoll: CliRunner) -> None:
    for words in (["--address", "http://127.0.0.1:7", "status"], ["status", "--address", "http://127.0.0.1:7"]):
        result = atoll.invoke(app, words)
        assert "http://127.0.0.1:7:" in result.stderr
    both = atoll.invoke(app, ["--address", "http://127.0.0.1:7", "status", "--address", NOWHERE])
    assert f"{NOWHERE}:" in both.stderr


def test_an_unreachable_server_is_named_with_the_way_out(atoll: CliRunner) -> None:
    result = atoll.invoke(app, ["get", "deployments"])
    assert result.exit_code == UNREACHABLE
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: cannot reach Atoll at {NOWHERE}: ")
    assert second.startswith("hint: is it running? start it with: atoll up")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["get"], "Missing argument 'KIND'"),
        (["logs", "a", "--tail", "0"], "Invalid value for '--tail'"),
        (["get", "deployments", "-o", "xml"], "-o cannot be 'xml'"),
        (["status", "-o", "yaml"], "-o cannot be 'yaml'"),
        (["apply", "-f", "nothing.yaml"], "there is no file 'nothing.yaml'"),
        (["models", "pull", "nothing"], "source cannot be 'nothing'"),
        (["models", "pull", "hf:a/b", "--sha256", "abc"], "--sha256 cannot be 'abc'"),
        (["usage", "--since", "soon"], "--since cannot be 'soon'"),
        (["usage", "--by", "colour"], "-o cannot be 'colour'"),
        (["keys", "create", "--expires-in", "3y"], "--expires-in cannot be '3y'"),
        (["keys", "limit", "key-1"], "nothing to change"),
        (["keys", "limit", "key-1", "--parallel", "few"], "--parallel cannot be 'few'"),
        (["keys", "rotate", "key-1", "--overlap", "soon"], "--overlap cannot be 'soon'"),
        (["secrets", "set", "api", "sk-without-a-name"], "a value without a name"),
        (["secrets", "set", "api", "A=-", "B=-"], "standard input holds one value only"),
        (["secrets", "set", "api", "A=@nothing.txt"], "A: cannot read 'nothing.txt'"),
        (["logs", "a", "b", "c"], "too many words"),
        (["status", "--address", "ftp://x"], "address cannot be 'ftp://x'"),
        (["data", "label", "add", "tones", "/proc/version/items.jsonl"], "/proc/version/items.jsonl: Not a directory"),
    ],
)
def test_bad_input_is_refused_with_a_hint(words: list[str], message: str, atoll: CliRunner) -> None:
    result = atoll.invoke(app, words)
    assert result.exit_code == BAD_INPUT
    assert message in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AtollError("x"), 1),
        (NotFound("x"), 1),
        (Conflict("x"), 1),
        (TimedOut("x"), 1),
        (Unavailable("x"), 1),
        (Invalid("x"), 2),
        (TooLarge("x"), 2),
        (Unreachable("x"), 3),
        (Unauthorized("x"), 4),
        (Forbidden("x"), 4),
    ],
)
def test_exit_codes_tell_errors_apart(error: AtollError, code: int) -> None:
    assert code_of(error) == code


def test_explain_works_without_a_server(atoll: CliRunner) -> None:
    result = atoll.invoke(app, ["explain", "deployment.spec.replicas"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "Deployment.spec.replicas: whole number"
    assert "no server to ask" in result.stderr
    assert atoll.invoke(app, ["explain", "deployment.nothing"]).exit_code == BAD_INPUT


def test_credentials_others_may_read_are_warned_of(atoll: CliRunner, home: Path) -> None:
    (home / "credentials.toml").chmod(0o644)
    assert "chmod 600" in atoll.invoke(app, ["status"]).stderr


def test_a_group_without_a_command_shows_its_help(atoll: CliRunner) -> None:
    result = atoll.invoke(app, ["models"])
    assert "pull" in result.output
    assert "error" not in result.stderr


def test_help_and_version_load_nothing_heavy() -> None:
    code = "import sys; from atoll.cli.main import app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"httpx", "pydantic", "yaml", "fastapi", "sqlalchemy", "uvicorn", "rich.console", "numpy"}


def test_the_script_prints_its_version() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("atoll"), "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"atoll {__version__}\n"
