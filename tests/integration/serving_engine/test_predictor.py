"""The predictor engine, running users' classes: tables, pictures, series, and code that misbehaves."""

from __future__ import annotations

import base64
import json
import os
import sys
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from running_engine import Running, started, wait_until
from task_folder import TaskFolder

pytest.importorskip("numpy", reason="numpy is not installed (pip install atoll[data])")

MODULE = "atoll.serving.engine.predictor"
CODE = str(Path(__file__).parent / "predictors")
PERMANENT = 3
BLACK, WHITE = (b"P5 2 2 255 " + bytes([value] * 4) for value in (1, 255))


def _input(folder: TaskFolder, named: str, files: dict[str, str], **changes: Any) -> dict[str, Any]:
    stored = [{"name": name, "digest": folder.store.put_bytes(text.encode()).digest} for name, text in files.items()]
    spec = {"model": stored[0], "files": stored, "format": "predictor", "task": "predict", "alias": "shop"}
    sizes = {"context": 1, "slots": 4, "version": "shop.v3"}
    options = {"code_path": CODE} | changes.pop("engine_options", {})
    predictor = f"predictors_shop:{named}" if named else ""
    return spec | sizes | {"predictor": predictor, "engine_options": options} | changes


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Start an engine on one of the classes; what it started is killed at the end."""
    running: list[Running] = []

    def start(named: str, files: dict[str, str] | None = None, **changes: Any) -> Running:
        folder = TaskFolder(tmp_path_factory.mktemp("engine"), MODULE)
        running.append(started(folder, _input(folder, named, files or {"readme.txt": "x"}, **changes)))
        return running[-1]

    yield start
    for engine in running:
        engine.process.kill()
        engine.process.wait()


@pytest.fixture(scope="module")
def prices(start: Callable[..., Running]) -> Running:
    return start("Prices", {"weights.csv": "1,2,3\n"}, engine_options={"batch_wait_ms": 200})


@pytest.fixture
def troubled(start: Callable[..., Running]) -> Running:
    return start("Troubled", engine_options={"timeout_s": 3}, health={"every_s": 0.2, "timeout_s": 30, "failures": 2})


def _infer(engine: Running, *tensors: dict[str, Any], **more: Any) -> httpx.Response:
    with httpx.Client(timeout=60.0) as client:
        return _infer_with(client, engine, *tensors, **more)


def _infer_with(client: httpx.Client, engine: Running, *tensors: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"inputs": list(tensors)} | more
    return client.post(f"{engine.url}/v2/models/shop/infer", json=body, headers=engine.headers)


def _rooms(*rows: list[float]) -> dict[str, Any]:
    return {"name": "rooms", "datatype": "FP32", "shape": [len(rows), 3], "data": list(rows)}


def _what(word: str) -> dict[str, Any]:
    return {"name": "what", "datatype": "BYTES", "shape": [1], "data": [word]}


def _outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


# -- the protocol --------------------------------------------------------------------------------------------------


def test_the_protocols_questions_are_answered(prices: Running) -> None:
    def get(path: str) -> Any:
        answer = httpx.get(prices.url + path, headers=prices.headers, timeout=60.0)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert prices.endpoint["capabilities"] == ["predict"]
    assert get("/v2")["name"] == "atoll" and "binary_tensor_data" in get("/v2")["extensions"]
    assert get("/v2/health/live") == {"live": True} and get("/v2/health/ready") == {"ready": True}
    about = get("/v2/models/shop")
    assert about == get("/v2/models/shop/versions/shop.v3")
    assert about["versions"] == ["shop.v3"]
    assert about["inputs"] == [{"name": "rooms", "datatype": "FP32", "shape": [-1, 3]}]
    assert get("/v2/models/shop/ready") == {"name": "shop", "ready": True}
    for path in ("/v2/models/other", "/v2/models/shop/versions/9", "/v2/models/shop/infer", "/v1/models"):
        assert httpx.get(prices.url + path, headers=prices.headers, timeout=60.0).status_code == 404
    assert httpx.get(f"{prices.url}/v2/models/shop", timeout=60.0).status_code == 401


def test_a_table_is_predicted(prices: Running) -> None:
    answer = _infer(prices, _rooms([1, 1, 1], [0, 0, 2]), id="r-1")
    assert answer.json()["id"] == "r-1" and answer.json()["model_version"] == "shop.v3"
    assert _outputs(answer)["price"] == [6.0, 6.0]
    assert list(_outputs(_infer(prices, _rooms([1, 0, 0]), outputs=[{"name": "price"}]))) == ["price"]


def test_rows_that_wait_together_are_predicted_together(prices: Running) -> None:
    with httpx.Client(timeout=60.0) as client, ThreadPoolExecutor(8) as pool:  # one client: to make one takes a while
        answers = list(pool.map(lambda n: _outputs(_infer_with(client, prices, _rooms([n, 0, 0]))), range(8)))
    assert [answer["price"] for answer in answers] == [[float(n)] for n in range(8)]
    assert max(answer["together"][0] for answer in answers) > 1


def test_a_request_that_is_wrong_does_not_fail_those_it_waited_with(prices: Running) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: _infer(prices, _rooms([n, 0, 0])), (1, -1, 2, 3)))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 200]
    assert answers[1].json() == {"error": "Prices: a size is negative"}


def test_pictures_are_predicted_from_base64_and_from_bytes(start: Callable[..., Running]) -> None:
    engine = start("Pictures")
    encoded = [base64.b64encode(picture).decode() for picture in (BLACK, WHITE)]
    head: dict[str, Any] = {"name": "picture", "datatype": "BYTES", "shape": [2]}
    named = _infer(engine, head | {"data": encoded, "parameters": {"content_type": "base64"}})
    assert _outputs(named)["label"] == ["dark", "bright"]
    packed = b"".join(len(picture).to_bytes(4, "little") + picture for picture in (BLACK, WHITE))
    item = head | {"parameters": {"binary_data_size": len(packed)}}
    text = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}).encode()
    answer = httpx.post(
        f"{engine.url}/v2/models/shop/infer",
        content=text + packed,
        headers=engine.headers | {"Inference-Header-Content-Length": str(len(text))},
        timeout=60.0,
    )
    length = int(answer.headers["inference-header-content-length"])
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(answer.content[:length])["outputs"]]
    assert np.frombuffer(answer.content[length : length + sizes[0]]).tolist() == pytest.approx([1 / 255, 1.0])


def test_a_series_is_forecast(start: Callable[..., Running]) -> None:
    engine = start("Series")
    history = {"name": "history", "datatype": "FP64", "shape": [6], "data": [9, 9, 1, 2, 3, 4]}
    steps = {"name": "steps", "datatype": "INT32", "shape": [1], "data": [6]}
    assert _outputs(_infer(engine, history, steps))["forecast"] == [1, 2, 3, 4, 1, 2]


# -- bad input and bad code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (_rooms([1, 1, 1]) | {"shape": [2, 3]}, "has 3 elements, shape [2, 3] takes 6"),
        (_rooms([1, 1, 1]) | {"datatype": "INT32"}, "holds"),
        (_rooms([1, 1, 1]) | {"name": "room"}, "room"),
        ({"name": "rooms", "datatype": "FP32", "shape": [1 << 60], "data": []}, "shape"),
    ],
)
def test_a_wrong_tensor_is_refused(prices: Running, tensor: dict[str, Any], why: str) -> None:
    if tensor["datatype"] == "INT32":
        tensor = tensor | {"data": [1.5, 1, 1]}
    answer = _infer(prices, tensor)
    assert answer.status_code == 400 and why in answer.json()["error"]


def test_malformed_and_oversized_bodies_are_refused(prices: Running) -> None:
    path = f"{prices.url}/v2/models/shop/infer"
    for content, status in ((b"{", 400), (b"[]", 400), (b'"' + b"x" * (65 << 20), 413)):
        assert httpx.post(path, content=content, headers=prices.headers, timeout=60.0).status_code == status


def test_code_that_fails_answers_so_and_lives_on(troubled: Running) -> None:
    for word, why in (("raise", "KeyError: 'no such column'"), ("exit", "SystemExit: 4"), ("else", "returned str")):
        answer = _infer(troubled, _what(word))
        assert answer.status_code == 500 and why in answer.json()["error"]
    assert _outputs(_infer(troubled, _what("fine"))) == {"fine": [True]}


def test_code_that_never_returns_ends_the_replica_to_be_started_again(troubled: Running) -> None:
    with pytest.raises(httpx.HTTPError):
        _infer(troubled, _what("hang"))
    assert troubled.process.wait(60.0) == 1
    assert "predict has not returned for 3 s" in troubled.folder.log


@pytest.mark.parametrize(
    ("named", "files", "changes", "why"),
    [
        ("Unloadable", {"a": "x"}, {}, "the weights are for another version"),
        ("Absent", {"a": "x"}, {}, "predictors_shop:Absent is not a class with a method predict"),
        ("", {"a": "x"}, {}, "predictor is ''"),
        ("", {"atoll-predictor.yaml": "predictor: nowhere:Model"}, {}, "cannot import nowhere"),
        ("Prices", {"atoll-predictor.yaml": "speed: 9"}, {}, "a field 'speed' that is not known"),
        ("Prices", {"atoll-predictor.yaml": "inputs: [{name: x}]"}, {}, "inputs: KeyError"),
        ("Prices", {"a": "x"}, {"engine_options": {"speed": 9}}, "no option 'speed'"),
        ("Series", {"a": "x"}, {"engine_options": {"batch_size_max": 4}}, "rows cannot be predicted together"),
        ("Prices", {"../a": "x"}, {}, "leaves the model's folder"),
    ],
)
def test_a_predictor_that_cannot_serve_is_a_permanent_failure(
    named: str, files: dict[str, str], changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    folder = TaskFolder(tmp_path, MODULE)
    code, result = folder.run(_input(folder, named, files, **changes))
    assert code == PERMANENT and why in result["error"]["message"], folder.log


def test_code_among_the_models_files_runs_only_when_that_is_asked_for(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    own = "class Own:\n    def predict(self, inputs):\n        return {'one': [1]}\n"
    files = {"atoll-predictor.yaml": "predictor: own_code:Own", "own_code.py": own}
    folder = TaskFolder(tmp_path, MODULE)
    code, result = folder.run(_input(folder, "", files))
    assert code == PERMANENT and "cannot import own_code" in result["error"]["message"]
    engine = start("", files, engine_options={"model_code": True})
    assert _outputs(_infer(engine, _what("x"))) == {"one": [1]}


def test_a_predictor_runs_in_its_own_environment(start: Callable[..., Running], tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = next((environment / "lib").glob("python*/site-packages"))
    (packages / "only_here.py").write_text("WORD = 'here'\n")
    engine = start("Elsewhere", environment=str(environment))
    outputs = _outputs(_infer(engine, _what("x")))
    assert outputs["word"] == ["here"] and os.path.samefile(outputs["prefix"][0], environment)
    assert outputs["pid"] == [engine.process.pid]
    assert engine.stop() == 0


def test_an_environment_of_another_python_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "env" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 2.7\n")
    program.chmod(0o755)
    folder = TaskFolder(tmp_path, MODULE)
    code, result = folder.run(_input(folder, "Prices", {"a": "x"}, environment=str(tmp_path / "env")))
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert code == PERMANENT and f"has Python 2.7, this node has {own}" in result["error"]["message"]


def test_a_stopped_predictor_ends_at_once(start: Callable[..., Running]) -> None:
    engine = start("Prices", {"weights.csv": "1,2,3\n"})
    assert engine.stop() == 0
    wait_until(lambda: engine.process.poll() is not None, "it has ended")
