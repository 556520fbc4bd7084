"""The parameters of generation, by the engine that understands them.

A request may carry any of them; the engine that answers decides what becomes of each: passed on, passed on under
another name, left out because it cannot change the answer, or refused by name. Left out on purpose everywhere are
those that reach into an engine (slots, adapters, chat templates of the client) or would hide what is metered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.serving.gateway.dialects.expect import (
    CHOICES,
    FLAG,
    INTEGER,
    LENGTH,
    LIST,
    NOT_NEGATIVE,
    NUMBER,
    OBJECT,
    OBJECT_OR_LIST,
    PROMPT,
    STOPS,
    TEXT,
    TEXT_OR_LIST,
    TEXT_OR_OBJECT,
    TEXTS,
    TOP_LOGPROBS,
    Expectation,
)

LLAMA_CPP: dict[str, Expectation] = {
    "adaptive_decay": NUMBER,
    "adaptive_target": NUMBER,
    "add_generation_prompt": FLAG,
    "cache_prompt": FLAG,
    "chat_template_kwargs": OBJECT,
    "dry_allowed_length": INTEGER,
    "dry_base": NUMBER,
    "dry_multiplier": NUMBER,
    "dry_penalty_last_n": INTEGER,
    "dry_sequence_breakers": LIST,
    "dynatemp_exponent": NUMBER,
    "dynatemp_range": NUMBER,
    "grammar": TEXT,
    "ignore_eos": FLAG,
    "json_schema": OBJECT,
    "min_keep": INTEGER,
    "min_p": NUMBER,
    "mirostat": INTEGER,
    "mirostat_eta": NUMBER,
    "mirostat_tau": NUMBER,
    "n_indent": INTEGER,
    "n_keep": INTEGER,
    "n_predict": LENGTH,
    "n_probs": TOP_LOGPROBS,
    "parse_tool_calls": FLAG,
    "post_sampling_probs": FLAG,
    "reasoning_format": TEXT,
    "repeat_last_n": INTEGER,
    "repeat_penalty": NUMBER,
    "return_progress": FLAG,
    "samplers": LIST,
    "t_max_predict_ms": NUMBER,
    "thinking_forced_open": FLAG,
    "timings_per_token": FLAG,
    "top_k": INTEGER,
    "top_n_sigma": NUMBER,
    "typical_p": NUMBER,
    "xtc_probability": NUMBER,
    "xtc_threshold": NUMBER,
}
_VLLM_AND_SGLANG: dict[str, Expectation] = {
    "add_generation_prompt": FLAG,
    "chat_template_kwargs": OBJECT,
    "continue_final_message": FLAG,
    "ignore_eos": FLAG,
    "min_p": NUMBER,
    "min_tokens": LENGTH,
    "repetition_penalty": NUMBER,
    "skip_special_tokens": FLAG,
    "stop_token_ids": LIST,
    "top_k": INTEGER,
}
VLLM: dict[str, Expectation] = _VLLM_AND_SGLANG | {
    "add_special_tokens": FLAG,
    "allowed_token_ids": LIST,
    "bad_words": TEXTS,
    "documents": LIST,
    "include_reasoning": FLAG,
    "include_stop_str_in_output": FLAG,
    "length_penalty": NUMBER,
    "mm_processor_kwargs": OBJECT,
    "spaces_between_special_tokens": FLAG,
    "structured_outputs": OBJECT,
    "truncate_prompt_tokens": LENGTH,
    "use_beam_search": FLAG,
}
SGLANG: dict[str, Expectation] = _VLLM_AND_SGLANG | {
    "ebnf": TEXT,
    "no_stop_trim": FLAG,
    "regex": TEXT,
    "separate_reasoning": FLAG,
    "stream_reasoning": FLAG,
}
TRANSFORMERS: dict[str, Expectation] = {
    "grammar": TEXT,
    "ignore_eos": FLAG,
    "json_schema": OBJECT,
    "min_p": NUMBER,
    "top_k": INTEGER,
}
PROVIDER: dict[str, Expectation] = {"min_p": NUMBER, "repetition_penalty": NUMBER, "top_k": INTEGER}
"""Not OpenAI's, but of so many services that speak its language that the service may say itself whether it knows."""

ENGINE_PARAMETERS: Mapping[str, frozenset[str]] = {
    "llamacpp": frozenset(LLAMA_CPP),
    "vllm": frozenset(VLLM),
    "sglang": frozenset(SGLANG),
    "transformers": frozenset(TRANSFORMERS),
    "openai": frozenset(PROVIDER),
}
OF_ENGINES: frozenset[str] = frozenset().union(*ENGINE_PARAMETERS.values())

_GENERATION: dict[str, Expectation] = {
    "frequency_penalty": NUMBER,
    "logit_bias": OBJECT_OR_LIST,
    "max_tokens": LENGTH,
    "model": TEXT,
    "n": CHOICES,
    "presence_penalty": NUMBER,
    "response_format": OBJECT,
    "seed": INTEGER,
    "stop": STOPS,
    "stream": FLAG,
    "stream_options": OBJECT,
    "temperature": NOT_NEGATIVE,
    "top_p": NUMBER,
    "user": TEXT,
}
_ENGINES = LLAMA_CPP | VLLM | SGLANG | TRANSFORMERS | PROVIDER
CHAT: Mapping[str, Expectation] = (
    _ENGINES
    | _GENERATION
    | {
        "audio": OBJECT,
        "function_call": TEXT_OR_OBJECT,
        "functions": LIST,
        "logprobs": FLAG,
        "max_completion_tokens": LENGTH,
        "messages": LIST,
        "metadata": OBJECT,
        "modalities": LIST,
        "parallel_tool_calls": FLAG,
        "prediction": OBJECT,
        "prompt_cache_key": TEXT,
        "prompt_cache_retention": TEXT,
        "reasoning_effort": TEXT,
        "safety_identifier": TEXT,
        "service_tier": TEXT,
        "store": FLAG,
        "tool_choice": TEXT_OR_OBJECT,
        "tools": LIST,
        "top_logprobs": TOP_LOGPROBS,
        "verbosity": TEXT,
        "web_search_options": OBJECT,
    }
)
COMPLETION: Mapping[str, Expectation] = (
    _ENGINES
    | _GENERATION
    | {"best_of": CHOICES, "echo": FLAG, "logprobs": TOP_LOGPROBS, "prompt": PROMPT, "suffix": TEXT}
)
EMBEDDING: Mapping[str, Expectation] = {
    "dimensions": INTEGER,
    "encoding_format": TEXT,
    "input": PROMPT,
    "model": TEXT,
    "user": TEXT,
}
RERANK: Mapping[str, Expectation] = {
    "documents": LIST,
    "max_tokens_per_doc": LENGTH,
    "model": TEXT,
    "query": TEXT,
    "return_documents": FLAG,
    "top_n": INTEGER,
    "user": TEXT,
}
MODERATION: Mapping[str, Expectation] = {"input": TEXT_OR_LIST, "model": TEXT}

PLAIN: frozenset[str] = frozenset(
    [
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "input",
        "encoding_format",
    ]
)
"""What every engine understands."""

HARMLESS: frozenset[str] = frozenset(
    [
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
        "reasoning_effort",
        "parallel_tool_calls",
        "tool_choice",
        "cache_prompt",
        "timings_per_token",
        "return_progress",
    ]
)
"""What an engine that does not know it may be spared: no answer becomes wrong without."""

SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "llamacpp": {"repetition_penalty": "repeat_penalty"},
    "vllm": {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens"},
    "sglang": {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens", "grammar": "ebnf"},
    "transformers": {"n_predict": "max_tokens"},
    "openai": {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens"},
}
"""Parameters another engine has under another name."""

NEUTRAL: Mapping[str, Any] = {
    "add_generation_prompt": True,
    "best_of": 1,
    "continue_final_message": False,
    "echo": False,
    "ignore_eos": False,
    "logprobs": False,
    "min_p": 0,
    "min_tokens": 0,
    "repeat_penalty": 1,
    "repetition_penalty": 1,
    "suffix": "",
    "use_beam_search": False,
}
"""Values with which a parameter asks for nothing."""
