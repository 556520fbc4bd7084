"""vLLM's and SGLang's engines around servers that look like theirs: how they start, serve, fail and end."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import fake_server
from running_engine import ENDS_WITHIN_S, Running, folder_input, started, wait_until
from task_folder import TaskFolder

pytest.importorskip("transformers", reason="the training extra is not installed (pip install atoll[train])")
tiny_safetensors = pytest.importorskip("tiny_safetensors")

PERMANENT, RETRIABLE = 3, 1
ENGINES = ("vllm", "sglang")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny_safetensors.write_model(tmp_path_factory.mktemp("model"))
    return path


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Callable[..., Running]]:
    """Start an engine on a stand-in; what it started is killed afterwards."""
    running: list[Running] = []

    def start(engine: str, mode: str = "ready", grace_s: float = 10.0, **changes: Any) -> Running:
        folder = TaskFolder(tmp_path / engine, f"atoll.serving.engine.{engine}")
        environment = fake_server.install(tmp_path / "env", mode)
        spec = folder_input(folder, model) | {"environment": str(environment)} | changes
        running.append(started(folder, spec, grace_s))
        return running[-1]

    yield start
    for engine in running:
        engine.process.kill()
        engine.process.wait()


def _was_started(tmp_path: Path) -> dict[str, Any]:
    return dict(json.loads((tmp_path / "env" / "started.json").read_text()))


def _lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("engine", ENGINES)
def test_a_ready_server_is_reached_with_its_own_key(engine: str, start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(engine)
    assert "chat" in running.endpoint["capabilities"] and "continuous_usage" in running.endpoint["capabilities"]
    assert "tools" in running.endpoint["capabilities"]
    assert (
        httpx.post(f"{running.url}/v1/completions", json={"prompt": "a", "model": "tiny"}, timeout=60.0).status_code
        == 401
    )
    assert running.post("/v1/completions", {"prompt": "a", "model": "tiny"})["choices"][0]["text"] == "x"
    progress = running.folder.read("progress.json")
    assert progress is not None and progress["message"] == "serving"
    assert running.endpoint["api_key"] not in " ".join(_was_started(tmp_path)["arguments"])
    assert running.endpoint["api_key"] not in running.folder.log
    assert running.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_of_the_platform_reaches_the_server(engine: str, start: Callable[..., Running], tmp_path: Path) -> None:
    start(engine)
    variables = _was_started(tmp_path)["environ"]
    assert not [name for name in variables if name.startswith(("ATOLL_", "AWS_"))]
    assert variables["HF_HUB_OFFLINE"] == "1" and variables["PATH"].startswith(str(tmp_path / "env" / "bin"))


def test_sglangs_key_is_in_a_file_of_this_user_alone(start: Callable[..., Running]) -> None:
    running = start("sglang")
    assert stat.S_IMODE((running.folder.path / "sglang.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stopped_engine_leaves_no_process(engine: str, start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(engine)
    pids = _was_started(tmp_path)
    assert _lives(pids["pid"]) and _lives(pids["worker"])
    assert running.stop() == 0
    wait_until(lambda: not _lives(pids["pid"]) and not _lives(pids["worker"]), "all are gone")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_engine_leaves_no_process(engine: str, start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(engine)
    pids = _was_started(tmp_path)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(ENDS_WITHIN_S)
    wait_until(lambda: not _lives(pids["pid"]) and not _lives(pids["worker"]), "all are gone")


def test_an_engine_told_to_stop_while_it_starts_leaves_no_process(tmp_path: Path, model: Path) -> None:
    folder = TaskFolder(tmp_path / "vllm", "atoll.serving.engine.vllm")
    environment = fake_server.install(tmp_path / "env", "silent")
    folder.prepare(folder_input(folder, model) | {"environment": str(environment)}, stop_grace_s=5.0)
    process = folder.start()
    wait_until(lambda: (folder.read("progress.json") or {}).get("message", "").startswith("laying"), "it loads")
    pids = _was_started(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(ENDS_WITHIN_S) == RETRIABLE
    wait_until(lambda: not _lives(pids["pid"]) and not _lives(pids["worker"]), "all are gone")


def test_a_server_that_dies_while_serving_ends_the_engine_to_be_tried_again(start: Callable[..., Running]) -> None:
    running = start("vllm", health={"every_s": 0.05, "timeout_s": 30, "failures": 2})
    with pytest.raises(httpx.HTTPError):
        running.post("/v1/completions", {"prompt": "crash", "model": "tiny"})
    assert running.process.wait(ENDS_WITHIN_S) == RETRIABLE
    assert "CUDA out of memory" in running.folder.log


@pytest.mark.parametrize(
    ("engine", "mode", "exit_code", "code", "why"),
    [
        ("vllm", "memory", PERMANENT, "capacity", "No available memory for the cache blocks"),
        ("vllm", "busy", RETRIABLE, "", "less than desired GPU memory utilization"),
        ("vllm", "port", RETRIABLE, "", "Address already in use"),
        ("vllm", "module", PERMANENT, "invalid", "No module named 'flash_attn'"),
        ("vllm", "architecture", PERMANENT, "invalid", "are not supported for now"),
        ("vllm", "options", PERMANENT, "invalid", "--speed=9"),
        ("sglang", "memory", PERMANENT, "capacity", "CUDA out of memory"),
        ("sglang", "port", RETRIABLE, "", "address already in use"),
        ("sglang", "module", PERMANENT, "invalid", "No module named 'sgl_kernel'"),
    ],
)
def test_a_failed_start_is_told_by_its_reason(
    engine: str, mode: str, exit_code: int, code: str, why: str, tmp_path: Path, model: Path
) -> None:
    folder = TaskFolder(tmp_path / engine, f"atoll.serving.engine.{engine}")
    environment = fake_server.install(tmp_path / "env", mode)
    ended, result = folder.run(folder_input(folder, model) | {"environment": str(environment)})
    assert ended == exit_code, folder.log
    if code:
        assert result["error"]["code"] == code and why in result["error"]["message"] and result["error"]["hint"]
    assert why in folder.log and folder.read("endpoint.json") is None


def test_an_environment_without_the_server_is_refused(tmp_path: Path, model: Path) -> None:
    folder = TaskFolder(tmp_path / "vllm", "atoll.serving.engine.vllm")
    code, result = folder.run(folder_input(folder, model) | {"environment": str(tmp_path / "nothing")})
    assert code == PERMANENT and result["error"]["details"]["field"] == "environment"
    assert "vllm needs vllm, which is not in" in result["error"]["message"]


def test_a_context_the_model_was_not_made_for_is_refused_before_the_server_starts(tmp_path: Path, model: Path) -> None:
    folder = TaskFolder(tmp_path / "vllm", "atoll.serving.engine.vllm")
    environment = fake_server.install(tmp_path / "env")
    spec = folder_input(folder, model) | {"environment": str(environment), "context": 1 << 20}
    code, result = folder.run(spec)
    assert code == PERMANENT and "was made for 4096 tokens" in result["error"]["message"]
    assert not os.path.exists(tmp_path / "env" / "started.json")
