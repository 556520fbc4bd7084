"""A gateway before real llama.cpp servers: a tiny random model, and a real small one where it is at hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import tiny_gguf
from integration.gateway.conftest import KEY, Running
from integration.gateway.conftest import control as control
from integration.gateway.conftest import start as start
from integration.gateway.control import Control, wait_until

CONTEXT = 2048
CAPABILITIES = ["chat", "completion", "json_schema", "grammar", "logprobs", "prefill", "timings"]
SERVER = """
    import os, sys
    os.environ["GOMP_SPINCOUNT"] = "1000"
    from xllamacpp import CommonParams, Server, llama_pooling_type
    parameters = CommonParams()
    parameters.model.path, parameters.n_parallel, parameters.n_ctx = sys.argv[1], 2, 2 * 2048
    parameters.api_keys, parameters.port, parameters.hostnames = ["engine-key"], 0, ["127.0.0.1"]
    parameters.cpuparams.n_threads, parameters.warmup, parameters.fit_params = 1, False, False
    parameters.kv_unified, parameters.use_jinja = False, True
    if "embedding" in sys.argv:
        parameters.embedding, parameters.pooling_type = True, llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session", autouse=True)
def _engine_is_installed() -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")


def llama(folder: Path, model: Path, *arguments: str) -> Iterator[str]:
    """The address of a llama.cpp server while it is iterated."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER), str(model), *arguments]
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        address = next((line for line in process.stdout if line.startswith(b"http://")), b"")
        assert address, (folder / "log").read_text()
        yield address.decode().strip()
        process.kill()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tiny")
    yield from llama(folder, tiny_gguf.write_model(folder / "tiny.gguf", context=1 << 16))


@pytest.fixture(scope="session")
def embedding_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("embedding")
    yield from llama(folder, tiny_gguf.write_model(folder / "tiny.gguf"), "embedding")


@pytest.fixture(scope="session")
def fim_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model whose vocabulary has tokens for filling in."""
    folder = tmp_path_factory.mktemp("fim")
    special = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    yield from llama(folder, tiny_gguf.write_model(folder / "tiny.gguf", special=special))


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real model of 135 million parameters."""
    named = os.environ.get("ATOLL_TEST_MODEL")
    paths = [Path(named)] if named else []
    if not paths:
        pytest.skip("no real model here: set ATOLL_TEST_MODEL to a GGUF chat model")
    yield from llama(tmp_path_factory.mktemp("small"), paths[0])


@pytest.fixture
def tiny(start: Callable[..., Running], control: Control, tiny_llama: str) -> Running:
    """A gateway with the model `tiny`."""
    add_model(control, "tiny", tiny_llama)
    return start()


@pytest.fixture
def small(start: Callable[..., Running], control: Control, small_llama: str) -> Running:
    """A gateway with the model `small`."""
    add_model(control, "small", small_llama)
    return start()


def add_model(control: Control, name: str, url: str, **fields: Any) -> None:
    """Serve what is at `url` under this name."""
    control.add_model(name, [url], **{"context": CONTEXT, "capabilities": CAPABILITIES} | fields)
    control.snapshot["models"]["default"][name]["targets"][0]["context"] = CONTEXT


def openai_of(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0, timeout=120)


def anthropic_of(running: Running) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=running.url, api_key=KEY, max_retries=0, timeout=120)


def follow(running: Running, control: Control) -> None:
    control.publish()
    seen = control.snapshot["seen"]
    wait_until(lambda: running.gateway.directory.snapshot.seen == seen, f"snapshot {seen} has come")
