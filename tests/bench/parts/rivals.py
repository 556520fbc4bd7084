"""Rivals, each installed from PyPI into an environment of its own that no other part of the project sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get("ATOLL_RIVALS") or Path(__file__).parents[3] / ".rivals")
LITELLM = "litellm[proxy]==1.106.2"
DATATROVE = (
    "datatrove[processing]==0.10.1",
    *("spacy", "jieba", "orjson", "regex", "fasteners", "tldextract", "zstandard", "fasttext-numpy2-wheel"),
)
DATA_JUICER = ("py-data-juicer==1.6.1", "aiohttp", "scipy")


def environment(name: str, *packages: str) -> Path:
    """The folder of a virtual environment with `packages`; made at the first call, kept for the next."""
    folder = HOME / name
    done = folder / ".installed"
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text() != wanted:
        sys.stdout.write(f"installing {', '.join(packages)} into {folder}\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, *packages], check=True)
        done.write_text(wanted)
    return folder


def start_litellm(folder: Path, port: int, upstream_port: int, model: str, key: str) -> subprocess.Popen[bytes]:
    """LiteLLM's proxy on `port` with one worker, one `model` and a master key, as its documentation starts it."""
    home = environment("litellm", LITELLM)
    config, upstream = folder / "litellm.yaml", f"http://127.0.0.1:{upstream_port}/v1"
    config.write_text(
        "model_list:\n"
        f"  - model_name: {model}\n"
        f'    litellm_params: {{model: "openai/{model}", api_base: "{upstream}", api_key: sk}}\n'
        "litellm_settings: {callbacks: [], num_retries: 0, request_timeout: 60, telemetry: false}\n"
        f"general_settings: {{master_key: {key}}}\n"
    )
    variables = {k: v for k, v in os.environ.items() if not k.startswith("ATOLL_")}
    variables |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*", "LITELLM_LOG": "ERROR"}
    command = [str(home / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    log = (folder / "litellm.log").open("wb")
    return subprocess.Popen([*command, "--num_workers", "1"], env=variables, stdout=log, stderr=log, cwd=folder)
