"""engine_options of llama.cpp: its own parameters (common_params) by name, the harmless ones.

What the platform sets itself (addresses, keys, paths, context, slots) and what reads or writes other files cannot be
set. Lists are written with commas; of an enumeration the last part of the name counts ("q8_0" for GGML_TYPE_Q8_0).
Names and types are those of xllamacpp 2026.10; a name it does not have is refused when the library is older.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from atoll.core.errors import Invalid
from atoll.serving.engine.base import Option

ALLOWED = frozenset(
    {
        *("n_batch", "n_ubatch", "n_keep", "n_predict", "n_threads_http", "timeout_read", "timeout_write"),
        *("cache_type_k", "cache_type_v", "cache_prompt", "cache_ram_mib", "cache_idle_slots", "n_cache_reuse"),
        *("n_ctx_checkpoints", "slot_prompt_similarity", "swa_full", "ctx_shift", "flash_attn_type", "load_mode"),
        *("n_gpu_layers", "main_gpu", "split_mode", "no_kv_offload", "no_op_offload", "fit_params", "moe_cache_size"),
        *("rope_freq_base", "rope_freq_scale", "rope_scaling_type", "yarn_ext_factor", "yarn_attn_factor"),
        *("yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx", "grp_attn_n", "grp_attn_w"),
        *("pooling_type", "attention_type", "embd_normalize", "reasoning_format", "enable_reasoning"),
        *("chat_template", "numa", "check_tensors", "warmup", "verbosity", "special"),
        *("sampling.temp", "sampling.top_k", "sampling.top_p", "sampling.min_p", "sampling.typ_p", "sampling.seed"),
        *("sampling.penalty_repeat", "sampling.penalty_last_n", "sampling.penalty_freq", "sampling.penalty_present"),
        *("sampling.dry_multiplier", "sampling.dry_base", "sampling.dry_allowed_length"),
        *("sampling.xtc_probability", "sampling.xtc_threshold"),
        *("speculative.types", "speculative.draft.n_max", "speculative.draft.n_min", "speculative.draft.p_min"),
        *("speculative.ngram_simple.size_n", "speculative.ngram_simple.size_m", "speculative.ngram_simple.min_hits"),
    }
)
_DRAFTLESS = ("none", "ngram_simple", "ngram_map_k", "ngram_map_k4v", "ngram_mod", "ngram_cache")


def apply_options(parameters: Any, options: Mapping[str, Option], library: Any) -> None:
    """Set each option on llama.cpp's parameters; Invalid names the option and what it may be."""
    for name, value in options.items():
        owner, field = _place(parameters, name)
        if name == "speculative.types":
            setattr(owner, field, _speculative(value, library.common_speculative_type))
            continue
        setattr(owner, field, _converted(name, value, getattr(owner, field)))


def check_options(options: Mapping[str, Option]) -> None:
    """Invalid when an option does not exist or cannot be set; values are checked when they are applied."""
    for name in options:
        if name not in ALLOWED:
            near = get_close_matches(name, ALLOWED, 1)
            hint = f"did you mean {near[0]!r}?" if near else "options are llama.cpp's own, such as cache_type_k"
            raise Invalid(f"llamacpp has no option {name!r}", field=f"engine_options.{name}", hint=hint)


def _place(parameters: Any, name: str) -> tuple[Any, str]:
    check_options({name: True})
    *path, field = name.split(".")
    for part in path:
        parameters = getattr(parameters, part)
    if not hasattr(parameters, field):
        raise Invalid(f"this llama.cpp has no parameter {name!r}", field=f"engine_options.{name}")
    return parameters, field


def _converted(name: str, value: Option, present: object) -> object:
    """`value` in the type of the present one."""
    field = f"engine_options.{name}"
    if isinstance(present, enum.Enum):
        return _member(field, value, type(present))
    if isinstance(present, bool):
        if not isinstance(value, bool):
            raise Invalid(f"{field} is {value!r}, not true or false", field=field)
        return value
    if isinstance(present, int) and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31:
        return value
    if isinstance(present, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(present, str) and isinstance(value, str):
        return value
    kinds = {int: "a whole number", float: "a number", str: "a text"}
    raise Invalid(f"{field} is {value!r}, not {kinds.get(type(present), 'what it takes')}", field=field)


def _member(field: str, value: Option, kind: type[enum.Enum]) -> enum.Enum:
    """The member whose name ends in `value`."""
    known = {name: member for name, member in kind.__members__.items() if not name.endswith(("_COUNT", "_MAX_VALUE"))}
    wanted = f"_{value}".upper()
    found = [member for name, member in known.items() if name.endswith(wanted)]
    if not isinstance(value, str) or not value or not found:
        prefix = _shared_prefix(list(known))
        names = ", ".join(name.removeprefix(prefix).lower() for name in known)
        raise Invalid(f"{field} is {value!r}", field=field, hint=f"one of {names}")
    return min(found, key=lambda member: len(member.name))


def _shared_prefix(names: list[str]) -> str:
    first, last = min(names), max(names)
    same = next((i for i, letter in enumerate(first) if letter != last[i : i + 1]), len(first))
    return first[: first.rfind("_", 0, same) + 1]


def _speculative(value: Option, kind: type[enum.Enum]) -> list[enum.Enum]:
    """Guessing from the text itself; a draft model would need files of its own."""
    field = "engine_options.speculative.types"
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else []
    if not names or any(name not in _DRAFTLESS for name in names):
        raise Invalid(f"{field} is {value!r}", field=field, hint="some of " + ", ".join(_DRAFTLESS))
    return [_member(field, name, kind) for name in names]
