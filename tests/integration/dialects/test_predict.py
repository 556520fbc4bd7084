"""The Open Inference Protocol passes to a predictor and back; refusals have its form."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest

from integration.dialects.conftest import follow
from integration.gateway.conftest import KEY, Running
from integration.gateway.control import Control

TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
ROOT = "/v2/models/iris"


@pytest.fixture
def predictor(tiny: Running, control: Control) -> Running:
    """A gateway with the model `iris`, whose predictor doubles what it gets."""

    def infer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        tensor = json.loads(body)["inputs"][0]
        output = tensor | {"name": "y", "data": [2 * value for value in tensor["data"]]}
        answer = {"model_name": "iris", "outputs": [output]}
        handler.reply(200, json.dumps(answer).encode())  # type: ignore[attr-defined]

    def tell(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        answer = {"name": "iris", "platform": "python", "inputs": [], "outputs": [], "asked": handler.command}
        handler.reply(200, json.dumps(answer).encode())  # type: ignore[attr-defined]

    control.routes[f"{ROOT}/infer"] = infer
    control.routes[ROOT] = control.routes[f"{ROOT}/ready"] = tell
    control.add_model("iris", [control.url], kind="predict", engine="predictor", capabilities=["predict"])
    follow(tiny, control)
    return tiny


def ask(running: Running, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.request(method, running.url + path, headers=headers, timeout=60, **options)


def test_tensors_pass_both_ways(predictor: Running, control: Control) -> None:
    for path in (f"{ROOT}/infer", f"{ROOT}/versions/1/infer"):
        answer = ask(predictor, "POST", path, json={"inputs": [TENSOR]})
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["data"] == [2.0, 4.0]
    record = control.wait_for_usage(1)[0]
    assert (record["endpoint"], record["model"]) == ("infer", "iris")


def test_metadata_and_readiness_are_the_predictors(predictor: Running) -> None:
    for path in (ROOT, f"{ROOT}/ready"):
        answer = ask(predictor, "GET", path)
        assert answer.status_code == 200
        assert (answer.json()["name"], answer.json()["asked"]) == ("iris", "GET")


def test_the_server_itself_is_alive(predictor: Running) -> None:
    assert httpx.get(f"{predictor.url}/v2/health/live", timeout=60).status_code == 200
    assert httpx.get(f"{predictor.url}/v2/health/ready", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{ROOT}/infer", {}, 400),
        (f"{ROOT}/infer", {"inputs": [{"name": "x"}]}, 400),
        (f"{ROOT}/infer", {"inputs": [TENSOR], "strange": 1}, 400),
        ("/v2/models/other/infer", {"inputs": [TENSOR]}, 404),
        ("/v2/models/tiny/infer", {"inputs": [TENSOR]}, 400),
    ],
)
def test_refusals_have_the_protocols_form(predictor: Running, path: str, body: Any, status: int) -> None:
    answer = ask(predictor, "POST", path, json=body)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)
