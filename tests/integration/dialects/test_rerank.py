"""Documents are ranked by a reranker's scores, or by embeddings where there is only an embedding model."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from integration.dialects.conftest import add_model, follow, openai_of
from integration.gateway.conftest import KEY, Running
from integration.gateway.control import Control

DOCUMENTS = ["a ring of islands", "a motor car", "coral reefs in the sea"]


def rank(running: Running, **fields: Any) -> httpx.Response:
    body = {"model": "ranker", "query": "What is an atoll?", "documents": DOCUMENTS} | fields
    return httpx.post(f"{running.url}/v1/rerank", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=60)


@pytest.fixture
def ranked(tiny: Running, control: Control, embedding_llama: str) -> Running:
    add_model(control, "ranker", embedding_llama, kind="embedding", capabilities=["embedding"])
    follow(tiny, control)
    return tiny


def test_embeddings_rank_by_their_likeness(ranked: Running, control: Control) -> None:
    answer = rank(ranked).json()
    with openai_of(ranked) as client:
        told = client.embeddings.create(
            model="ranker", input=["What is an atoll?", *DOCUMENTS], encoding_format="float"
        )
    query, *documents = [item.embedding for item in told.data]
    expected = {index: _cosine(query, document) for index, document in enumerate(documents)}
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    for result in answer["results"]:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=1e-5)
    record = control.wait_for_usage(1)[0]
    assert record["endpoint"] == "rerank" and record["prompt_tokens"] == answer["usage"]["prompt_tokens"] > 0


def test_embeddings_come_in_the_clients_own_encoding(ranked: Running) -> None:
    with openai_of(ranked) as client:
        packed = client.embeddings.create(model="ranker", input=["a", "b"]).data
        plain = client.embeddings.create(model="ranker", input=["a", "b"], encoding_format="float").data
        tokens = client.embeddings.create(model="ranker", input=[[97], [98]]).data
    for one, other, third in zip(packed, plain, tokens, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)
        assert len(third.embedding) == len(one.embedding)


def test_only_the_best_come_with_their_documents(ranked: Running) -> None:
    results = rank(ranked, top_n=2, return_documents=True, documents=[{"text": text} for text in DOCUMENTS]).json()
    assert len(results["results"]) == 2
    assert all(r["document"]["text"] == DOCUMENTS[r["index"]] for r in results["results"])


def test_rerankers_own_scores_are_used(tiny: Running, control: Control) -> None:
    control.routes["/v1/rerank"] = lambda handler, body: handler.reply(200, SCORES)  # type: ignore[attr-defined]
    add_model(control, "ranker", control.url, kind="rerank", capabilities=["rerank"])
    follow(tiny, control)
    answer = rank(tiny).json()
    assert [(r["index"], r["relevance_score"]) for r in answer["results"]] == [(2, 0.9), (0, 0.5), (1, -3.0)]
    assert answer["model"] == "ranker"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": [3]}, "documents[0]"),
        ({"query": None}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"max_tokens_per_doc": 9}, "max_tokens_per_doc"),
    ],
)
def test_wrong_requests_are_named(ranked: Running, changes: dict[str, Any], param: str) -> None:
    answer = rank(ranked, **changes)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


SCORES = (
    b'{"model":"m","object":"list","usage":{"prompt_tokens":9,"total_tokens":9},"results":['
    b'{"index":0,"relevance_score":0.5},{"index":1,"relevance_score":-3.0},{"index":2,"relevance_score":0.9}]}'
)


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
