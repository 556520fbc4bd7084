"""Which endpoint answers a path."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.serving.gateway.dialects import anthropic, anthropic_answer, parameters, predict, responses
from atoll.serving.gateway.dialects.generation import read_chat, read_completion, read_embedding
from atoll.serving.gateway.dialects.moderation import read_moderation
from atoll.serving.gateway.dialects.order import Endpoint
from atoll.serving.gateway.dialects.rerank import read_rerank

_CHAT = frozenset({"chat"})
_TEXT = frozenset({"chat", "completion"})
_RERANK = frozenset({"rerank", "embedding"})

CHAT = Endpoint("chat", "/v1/chat/completions", parameters.CHAT, "messages", _CHAT, read_chat)
COMPLETION = Endpoint("completion", "/v1/completions", parameters.COMPLETION, "prompt", _TEXT, read_completion)
EMBEDDING = Endpoint(
    "embedding", "/v1/embeddings", parameters.EMBEDDING, "input", frozenset({"embedding"}), read_embedding
)
RESPONSES = Endpoint("responses", "/v1/responses", responses.RESPONSES, "messages", _CHAT, responses.read_responses)
MESSAGES = Endpoint(
    "messages",
    "/v1/messages",
    anthropic.MESSAGES,
    "messages",
    _CHAT,
    anthropic.read_messages,
    render_error=anthropic_answer.render_error,
    break_off=anthropic_answer.break_off,
)
COUNT_TOKENS = Endpoint(
    "count_tokens",
    "/v1/messages/count_tokens",
    anthropic.MESSAGES,
    "messages",
    _CHAT,
    anthropic.read_count,
    render_error=anthropic_answer.render_error,
    break_off=anthropic_answer.break_off,
)
RERANK = Endpoint("rerank", "/v1/rerank", parameters.RERANK, "documents", _RERANK, read_rerank)
MODERATION = Endpoint("moderation", "/v1/moderations", parameters.MODERATION, "input", _CHAT, read_moderation)

ENDPOINTS = (CHAT, COMPLETION, EMBEDDING, RESPONSES, MESSAGES, COUNT_TOKENS, RERANK, MODERATION)
_BY_PATH: Mapping[bytes, Endpoint] = {endpoint.path.encode(): endpoint for endpoint in ENDPOINTS}


def endpoint_of(path: bytes) -> Endpoint | None:
    """The endpoint of a path, whatever the method (see Endpoint.method); None when it is not one of inference."""
    endpoint = _BY_PATH.get(path)
    if endpoint is not None or not path.startswith(predict.ROOT):
        return endpoint
    return predict.endpoint_of(path)
