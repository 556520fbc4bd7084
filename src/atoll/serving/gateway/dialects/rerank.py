"""Documents in the order of their fitness for a query: by a model made for it, or by the likeness of embeddings.

Requests and answers have the form Cohere, Jina, llama.cpp and vLLM share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from atoll.core.errors import AtollError, IntegrityError, Invalid
from atoll.serving.gateway.dialects import refusal
from atoll.serving.gateway.dialects.engines import can
from atoll.serving.gateway.dialects.expect import (
    PROMPTS_MAX,
    check_model,
    check_parameters,
    is_number,
    read_object,
    require,
    wrong,
)
from atoll.serving.gateway.dialects.order import Endpoint, Headers, Order, Target, Translation
from atoll.serving.gateway.dialects.stream import guarded, loads_object

TOKENS_PER_DOCUMENT = 64


class Rerank(Order):
    """A request to /v1/rerank."""

    __slots__ = ("documents",)

    documents: list[str]

    def path(self, target: Target) -> str:
        return "/v1/rerank" if can(target, "rerank") else "/v1/embeddings"

    def body(self, target: Target, output_max: int | None = None) -> bytes:
        model, query = target.model or self.model, self.fields["query"]
        if can(target, "rerank"):
            asked = {"model": model, "query": query, "documents": self.documents}
            return orjson.dumps(asked)
        return orjson.dumps({"model": model, "input": [query, *self.documents], "encoding_format": "float"})

    def translation(self, target: Target) -> Translation:
        return RerankTranslation(self, is_native=can(target, "rerank"))


def read_rerank(endpoint: Endpoint, data: bytes, headers: Headers) -> Rerank:
    fields = read_object(data)
    require(fields, "model", "query", "documents")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    documents = fields["documents"]
    if not 0 < len(documents) <= PROMPTS_MAX:
        raise Invalid(f"'documents' has {len(documents)} items; 1 to {PROMPTS_MAX} are allowed.", field="documents")
    if fields.get("top_n") is not None and fields["top_n"] < 1:
        raise wrong("top_n", "an integer not below 1", fields["top_n"])
    if fields.get("max_tokens_per_doc") is not None:
        raise Invalid("'max_tokens_per_doc' is not supported: no document is cut.", field="max_tokens_per_doc")
    query = len(fields["query"].encode())
    bound = len(data) + (query + TOKENS_PER_DOCUMENT) * (len(documents) + 1)
    order = Rerank(endpoint, data, fields, headers, prompt_bound=bound)
    order.documents = [_text(f"documents[{index}]", document) for index, document in enumerate(documents)]
    return order


def _text(where: str, document: Any) -> str:
    text = document.get("text") if isinstance(document, Mapping) else document
    if not isinstance(text, str):
        raise wrong(where, "a string, or an object with a 'text'", document)
    return text


class RerankTranslation:
    """Scores of either kind of engine as one form of answer; never a stream. See order.Translation."""

    __slots__ = ("_is_native", "_order")

    def __init__(self, order: Rerank, *, is_native: bool) -> None:
        self._order = order
        self._is_native = is_native

    @guarded
    def whole(self, body: bytes) -> bytes:
        answer, order = loads_object(body), self._order
        scores = native_scores(answer) if self._is_native else likeness_scores(answer)
        if sorted(scores) != list(range(len(order.documents))):
            raise IntegrityError(f"the engine scored {len(scores)} of {len(order.documents)} documents")
        ranked = sorted(scores, key=lambda index: (-scores[index], index))[: order.fields.get("top_n")]
        results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in ranked]
        if order.fields.get("return_documents"):
            for result in results:
                result["document"] = {"text": order.documents[result["index"]]}
        usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
        return orjson.dumps({"object": "list", "model": order.model, "results": results, "usage": usage})

    def events(self, data: bytes) -> bytes:
        return data

    def finish(self, rest: bytes) -> bytes:
        return rest

    def break_off(self, error: AtollError) -> bytes:
        return refusal.break_off(error)


def native_scores(answer: Mapping[str, Any]) -> dict[int, float]:
    """Score by document, from an engine that reranks. Raises IntegrityError."""
    try:
        return {int(r["index"]): float(r["relevance_score"]) for r in answer["results"]}
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the engine's answer has no scores: {error!r}") from None


def likeness_scores(answer: Mapping[str, Any]) -> dict[int, float]:
    """Cosine of each document's embedding with the query's, which is the first. Raises IntegrityError."""
    try:
        ordered = sorted(answer["data"], key=lambda item: item["index"])
        query, *documents = [item["embedding"] for item in ordered]
        return {index: cosine(query, document) for index, document in enumerate(documents)}
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the engine's answer has no embeddings: {error!r}") from None


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine of the angle between two vectors of equal length; 0 for a vector without length."""
    if not all(map(is_number, (*a, *b))):
        raise ValueError("an embedding has something that is no number")
    scale = _length(a) * _length(b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / scale if scale else 0.0


def _length(vector: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))
