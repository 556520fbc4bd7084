"""Answers held to a JSON schema, a grammar or a tool's parameters while they are generated, by llguidance.

A grammar is compiled before a request is queued, so a wrong one is the client's error. Grammars are llama.cpp's GBNF
or llguidance's Lark. A constrained answer that reaches its token limit is cut like any other and then is not whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import llguidance.hf
import torch

from atoll.core.errors import Invalid

GRAMMAR_CHARS_MAX = 1 << 18
_WHITESPACE = {"whitespace_flexible": False}
_CALL = """start: %s
text: /[^{<\\s](.|\\n)*/
call: ("<tool_call>" "\\n"?)? object ("\\n"? "</tool_call>")?
object: %%json %s
"""


class Constraint:
    """What one answer may be; follows the answer token by token."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def copy(self) -> Constraint:
        """The same for another answer, from where this one is."""
        return Constraint(self._matcher.deep_copy(), self._vocabulary)

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> torch.Tensor:
        """(vocabulary,) bool: the tokens that may come next."""
        bias = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) != 0
        if bias.shape[0] == self._vocabulary:
            return bias
        whole = torch.zeros(self._vocabulary, dtype=torch.bool)
        count = min(self._vocabulary, bias.shape[0])
        whole[:count] = bias[:count]
        return whole

    def take(self, token: int) -> None:
        """The token that came."""
        self._matcher.consume_token(token)


class Constraints:
    """Makes constraints for one model; `vocabulary` is the size of its logits."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(end_tokens))

    def of_schema(self, schema: object, field: str) -> Constraint:
        """Any JSON the schema allows; Invalid names `field`."""
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            raise Invalid(f"{field} is not a JSON schema", field=field)
        text = json.dumps(schema)
        _check_size(text, field)
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides=_WHITESPACE)
        except ValueError as error:
            raise Invalid(f"{field} is not a schema that can be enforced: {error}", field=field) from error
        return self._made(grammar, field)

    def of_grammar(self, text: object, field: str) -> Constraint:
        """Any text the grammar allows; Invalid names `field`."""
        if not isinstance(text, str) or not text:
            raise Invalid(f"{field} is not a grammar", field=field, hint="GBNF as llama.cpp reads it, or Lark")
        _check_size(text, field)
        try:
            grammar = llguidance.grammar_from("grammar", text)
        except ValueError as error:
            raise Invalid(f"{field} is not a grammar: {error}", field=field) from error
        return self._made(grammar, field)

    def of_call(self, tools: Sequence[Mapping[str, Any]], *, is_required: bool) -> Constraint:
        """A call of one of the functions as {"name", "arguments"}, or, unless required, text that is none."""
        calls = [_call_schema(tool) for tool in tools]
        schema = json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls})
        _check_size(schema, "tools")
        lark = _CALL % ("call" if is_required else "text | call", schema)
        return self._made(llguidance.LLMatcher.grammar_from_lark(lark), "tools")

    def _made(self, grammar: str, field: str) -> Constraint:
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            reason = str(matcher.get_error()).strip().splitlines()[0][:500]
            raise Invalid(f"{field} cannot be enforced: {reason}", field=field)
        return Constraint(matcher, self._vocabulary)


def _call_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    parameters = tool.get("parameters") or {"type": "object"}
    properties = {"name": {"const": tool["name"]}, "arguments": parameters}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
        "x-guidance": _WHITESPACE,
    }


def _check_size(text: str, field: str) -> None:
    if len(text) > GRAMMAR_CHARS_MAX:
        raise Invalid(f"{field} has {len(text)} characters, the limit is {GRAMMAR_CHARS_MAX}", field=field)
