"""A folder of safetensors as a text model: weights, tokeniser, chat template, pooling; from local files only.

Weights in half precision are computed as float32 on a processor unless the option `dtype` says otherwise: it is
faster there, and takes twice the memory. Code that comes with a model is never run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from atoll.core.errors import Invalid
from atoll.core.files import read_json
from atoll.serving.engine.base import Option, ServeInput

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIONS = frozenset({"dtype", "attn_implementation", "pooling"})
POOLINGS = ("mean", "cls", "last", "max")
_POOLING_FIELDS = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last", "max_tokens": "max"}
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError, AttributeError)


class TextModel:
    """The loaded model and how text becomes tokens; `encode` and `render` may be called from any thread."""

    def __init__(self, model: Any, tokenizer: Any, context: int) -> None:
        self.model, self.tokenizer, self.context = model, tokenizer, context
        self.backend = tokenizer.backend_tokenizer
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self._lock = threading.Lock()

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        settings = getattr(self.model, "generation_config", None)
        named = getattr(settings, "eos_token_id", None)
        ends = list(named) if isinstance(named, list | tuple) else [named]
        return frozenset(end for end in (*ends, self.tokenizer.eos_token_id) if isinstance(end, int))

    def encode(self, text: str, *, is_rendered: bool = False) -> list[int]:
        """Its tokens; a rendered chat brings its special tokens along."""
        with self._lock:
            return list(self.tokenizer.encode(text, add_special_tokens=not is_rendered))

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The prompt of a chat; one that ends with the assistant's words is to be continued. Invalid."""
        is_continued = bool(messages) and messages[-1].get("role") == "assistant"
        try:
            with self._lock:
                return str(
                    self.tokenizer.apply_chat_template(
                        list(messages),
                        tools=list(tools) if tools else None,
                        tokenize=False,
                        add_generation_prompt=not is_continued,
                        continue_final_message=is_continued,
                    )
                )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise Invalid(f"the model's chat template refuses the messages: {error}", field="messages") from error

    def knows_tools(self) -> bool:
        """Whether the chat template tells the model of its tools."""
        template = self.tokenizer.chat_template
        texts = template.values() if isinstance(template, dict) else [template or ""]
        return any("tools" in str(text) for text in texts)

    def token_text(self, token: int) -> str:
        """One token as text, bytes that are no whole character as a replacement."""
        return str(self.backend.decode([token], skip_special_tokens=False))


def check_options(options: Mapping[str, Option]) -> None:
    """Invalid names an option there is not, or a value it cannot have."""
    for name in options:
        if name not in OPTIONS:
            hint = "there are " + ", ".join(sorted(OPTIONS))
            raise Invalid(f"transformers has no option {name!r}", field=f"engine_options.{name}", hint=hint)
    known: dict[str, Sequence[str]] = {
        "dtype": ("auto", *DTYPES),
        "pooling": POOLINGS,
        "attn_implementation": ("sdpa", "eager"),
    }
    for name, values in known.items():
        if name in options and options[name] not in values:
            field, hint = f"engine_options.{name}", "one of " + ", ".join(values)
            raise Invalid(f"{field} is {options[name]!r}", field=field, hint=hint)


def load(spec: ServeInput, folder: Path) -> TextModel:
    """The model in `folder`, ready to compute. Invalid when transformers cannot serve it."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    device = "cuda" if spec.accelerators and torch.cuda.is_available() else "cpu"
    attention = str(spec.engine_options.get("attn_implementation", "sdpa"))
    maker = AutoModelForCausalLM if spec.is_generating else AutoModel
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = _guarded(lambda: AutoTokenizer.from_pretrained(folder, **local), spec.alias)
    if not getattr(tokenizer, "is_fast", False):
        raise Invalid(f"{spec.alias} has no tokenizer.json", field="model", hint="take a version with a fast tokeniser")
    wanted = {"use_safetensors": True, "attn_implementation": attention, "dtype": _dtype(spec, folder, device)}
    model = _guarded(lambda: maker.from_pretrained(folder, **local, **wanted), spec.alias)
    return TextModel(model.eval().to(device), tokenizer, spec.context)


def pooling(spec: ServeInput, folder: Path) -> str:
    """How vectors of tokens become one: as asked, as sentence-transformers is told, else their mean."""
    if "pooling" in spec.engine_options:
        return str(spec.engine_options["pooling"])
    told = read_json(folder / "1_Pooling" / "config.json") or {}
    modes = [mode for field, mode in _POOLING_FIELDS.items() if told.get(f"pooling_mode_{field}")]
    return modes[0] if modes else "mean"


def embed(text_model: TextModel, rows: Sequence[Sequence[int]], how: str) -> torch.Tensor:
    """(rows, size) float32: one unit vector for each row of tokens."""
    device, longest = text_model.model.device, max(len(row) for row in rows)
    tokens = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    output = text_model.model(input_ids=tokens.to(device), attention_mask=mask.to(device))
    states = output.last_hidden_state.float().cpu()
    return torch.nn.functional.normalize(_pooled(states, mask, how), dim=-1)


def _pooled(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """(rows, size) of (rows, tokens, size)."""
    if how == "cls":
        return states[:, 0]
    if how == "last":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    if how == "max":
        return states.masked_fill(mask[:, :, None] == 0, -torch.inf).max(1).values
    return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def _dtype(spec: ServeInput, folder: Path, device: str) -> Any:
    asked = str(spec.engine_options.get("dtype", ""))
    if asked in DTYPES:
        return DTYPES[asked]
    return "auto" if asked == "auto" or device != "cpu" else torch.float32


def _guarded(work: Callable[[], Any], name: str) -> Any:
    try:
        return work()
    except _LOAD_ERRORS as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Invalid(f"transformers cannot serve {name}: {lines[0][:500]}", field="model") from error
