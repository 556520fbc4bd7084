"""The first journey: documents become a dataset, a tuned model, a service and a statement.

Everything it does goes through the ordinary interfaces: one Pipeline manifest, the `atoll` command, the SDK and
the official `openai` client. The only unusual act is the `kill -9` of the trainer in mid-run.

    make demo                 the standard library's documentation; stays up until Ctrl-C
    make demo DOCS=folder     your own txt, md, rst and html files
    make demo ARGS=--exit     stops at the end
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import openai
import yaml
from rich.console import Console
from rich.table import Table

from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError
from atoll.core.settings import Settings, load
from atoll.data.manifest import read_split
from atoll.sdk import Client, resolve_credentials

HERE = Path(__file__).parent
BASE, TUNED = "smollm2", "docs-tutor"
KILL_AT = 0.4
QUESTIONS = 3
ANSWER_TOKENS = 80

console = Console()


def main() -> int:
    options = _options()
    os.environ.setdefault("ATOLL_HOME", str(Path.cwd() / ".atoll"))
    settings = load({"home": os.environ["ATOLL_HOME"]})
    started_at = time.monotonic()
    platform = subprocess.Popen([_atoll(), "up"], stdout=subprocess.DEVNULL, stderr=sys.stderr, process_group=0)
    try:
        _wait_until_up(settings, platform)
        credentials = resolve_credentials(home=settings.home)
        with Client.connect(credentials) as client:
            code = _journey(client, settings, options.docs)
            if code:
                return code
            console.print(f"\n[bold]Done in {(time.monotonic() - started_at) / 60:.1f} minutes.[/]")
            if not options.exit:
                _invite(credentials.address, credentials.key, settings)
                platform.wait()
    except AtollError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopping")
    finally:
        platform.send_signal(signal.SIGTERM)
        platform.wait()
    return 0


def _journey(client: Client, settings: Settings, docs: str) -> int:
    manifest = _manifest(settings, docs)
    is_over = threading.Event()
    killer = threading.Thread(target=_kill_the_trainer, args=(settings, is_over))
    killer.start()
    try:
        code = subprocess.run([_atoll(), "pipeline", "run", "-f", str(manifest), "--yes"], check=False).returncode
    finally:
        is_over.set()
        killer.join()
    if code:
        return code
    _show_data(client)
    _show_model(client)
    _show_training(client)
    _ask_both(client, settings)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Documents to a metered answer, on this machine.")
    parser.add_argument("--exit", action="store_true", help="stop at the end instead of staying up")
    parser.add_argument("--docs", default=os.environ.get("DOCS", ""), help="a folder of txt, md, rst, html")
    return parser.parse_args()


def _atoll() -> str:
    return str(Path(sys.executable).with_name("atoll"))


def _wait_until_up(settings: Settings, platform: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    with console.status("starting the platform"):
        while time.monotonic() < deadline:
            if platform.poll() is not None:
                raise AtollError("the platform did not start", hint="its words are above")
            try:
                with Client.connect(resolve_credentials(home=settings.home)) as client:
                    client.status()
                return
            except AtollError:
                time.sleep(0.2)
    raise AtollError(f"the platform did not answer at {settings.listen}", hint=f"see {settings.home / 'logs'}")


def _manifest(settings: Settings, docs: str) -> Path:
    """The pipeline's file; with `docs`, a copy that reads that folder instead."""
    source = HERE / "pipeline.yaml"
    if not docs:
        return source
    folder = Path(docs).expanduser().resolve()
    manifest = yaml.safe_load(source.read_text())
    curate = next(s for s in manifest["spec"]["steps"] if s["name"] == "curate")
    curate["spec"]["sources"] = [{"kind": "folder", "path": str(folder)}]
    target = settings.home / "first-journey.yaml"
    target.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return target


def _kill_the_trainer(settings: Settings, is_over: threading.Event) -> None:
    """Once the trainer is well under way: kill -9. Nobody restarts it by hand."""
    with Client.connect(resolve_credentials(home=settings.home)) as client:
        while not is_over.wait(0.5):
            trainers = [t for t in client.find_all("Task").items if "atoll.training.engine.main" in t.spec["command"]]
            if any(t.spec["epoch"] > 1 for t in trainers):
                return
            for task in trainers:
                progress = task.status.get("progress") or {}
                share = progress.get("done", 0) / (progress.get("total") or 1)
                if task.phase == "running" and progress.get("stage") == "train" and KILL_AT <= share < 1:
                    os.kill(task.status["pid"], signal.SIGKILL)
                    where = f"step {progress['done']} of {progress['total']}"
                    console.print(f"[bold red]kill -9[/] of the trainer (process {task.status['pid']}) at {where}")
                    return


def _show_data(client: Client) -> None:
    run = client.get("CurationRun", "first-journey-curate")
    counts = run.status["counts"]
    table = Table(title=f"Funnel: {counts['documents_in']} documents in, {counts['documents_out']} out")
    table.add_column("dropped by", no_wrap=True)
    table.add_column("documents", justify="right", no_wrap=True)
    table.add_column("for example", overflow="ellipsis", no_wrap=True, max_width=46)
    for rule in run.status["funnel"]:
        if rule["dropped"]:
            table.add_row(rule["rule"], str(rule["dropped"]), str(next(iter(rule["samples"]), "")))
    console.print(table)
    rows = ", ".join(f"{counts[s]} {s}" for s in ("train", "heldout", "qa_train", "qa_heldout"))
    console.print(f"dataset {run.status['dataset_version']}: {rows}")


def _show_model(client: Client) -> None:
    version = client.get("ModelVersion", "smollm2-135m-instruct.v1").status
    for file in version["files"]:
        console.print(f"model {file['name']}: {file['size_bytes'] / 2**20:.0f} MiB, {file['digest']}", highlight=False)
    console.print(f"licence {version['licence']}, origin {version['origin'].get('source')}", highlight=False)


def _show_training(client: Client) -> None:
    run = client.get("TrainingRun", "first-journey-train")
    result, loss = run.status["result"], run.status["result"]["loss"]
    verdict = client.get("Evaluation", "first-journey-evaluate").status
    model = client.get("Model", TUNED).status
    restarts = f"{run.status['restarts']} restart" + ("" if run.status["restarts"] == 1 else "s")
    console.print(
        f"training: {result['steps']} steps, {restarts} survived, {result['lost_s']:.1f} s lost to them, "
        f"held-out loss {loss['heldout_before']:.3f} -> {loss['heldout_after']:.3f}"
    )
    console.print(f"gate: loss down by {verdict['drop']:.1%}; production is now {model['production']}")


def _ask_both(client: Client, settings: Settings) -> None:
    """The same held-out questions to both models; what the engine counted must be what is billed."""
    key = client.create_key(description="first journey")
    door = openai.OpenAI(base_url=f"http://{settings.listen}/v1", api_key=key.key, max_retries=0)
    dataset = client.get("CurationRun", "first-journey-curate").status["dataset_version"]
    digest = client.get("DatasetVersion", dataset).spec["manifest"]
    rows = read_split(BlobStore(settings.blobs_url), digest, "qa_heldout").slice(0, QUESTIONS).to_pylist()
    counted: Counter[tuple[str, str]] = Counter()
    for row in rows:
        table = Table(title=row["question"], show_header=True)
        answers = []
        for model in (BASE, TUNED):
            table.add_column(model, ratio=1)
            answers.append(_answer(door, model, row["question"], counted))
        table.add_row(*answers)
        console.print(table)
    _statement(client, key.id, counted)


def _answer(door: openai.OpenAI, model: str, question: str, counted: Counter[tuple[str, str]]) -> str:
    reply = door.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=ANSWER_TOKENS, temperature=0, seed=1
    )
    assert reply.usage is not None
    counted[model, "prompt_tokens"] += reply.usage.prompt_tokens
    counted[model, "completion_tokens"] += reply.usage.completion_tokens
    return (reply.choices[0].message.content or "").strip()


def _statement(client: Client, key: str, counted: Counter[tuple[str, str]]) -> None:
    """The bill, once it holds as many tokens as the engines reported."""
    deadline = time.monotonic() + 15
    while True:
        rows = [row for row in client.usage().rows if row.key == key]
        billed = Counter({(r.model, n): getattr(r, n) for r in rows for n in ("prompt_tokens", "completion_tokens")})
        if billed == counted:
            break
        if time.monotonic() > deadline:
            raise AtollError(f"billed {dict(billed)}, but the engines reported {dict(counted)}")
        time.sleep(0.2)
    table = Table(title=f"Statement of {key}: equal to what the engines reported")
    for heading in ("model", "requests", "tokens in", "tokens out", "cost"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        cost = f"{row.cost:.6f} {row.currency}"
        table.add_row(row.model, str(row.requests), str(row.prompt_tokens), str(row.completion_tokens), cost)
    console.print(table)


def _invite(address: str, key: str, settings: Settings) -> None:
    console.print(f"\nThe platform is at [bold]{address}[/], your API key is [bold]{key}[/]. Try:", highlight=False)
    home = f"ATOLL_HOME={settings.home} "
    console.print(f"  {home}{_atoll()} chat {TUNED} 'What does json.loads do?'", highlight=False, soft_wrap=True)
    console.print(f"  {home}{_atoll()} usage", highlight=False, soft_wrap=True)
    body = f'{{"model": "{TUNED}", "messages": [{{"role": "user", "content": "What is a generator?"}}]}}'
    console.print(
        f"  curl {address}/v1/chat/completions -H 'Authorization: Bearer {key}' -d '{body}'",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    console.print("Ctrl-C stops everything.")


if __name__ == "__main__":
    sys.exit(main())
