"""Options of llama.cpp by its own names."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.llamacpp_options import ALLOWED, apply_options, check_options

xllamacpp: Any = pytest.importorskip("xllamacpp")


def test_options_reach_the_parameters_in_their_own_types() -> None:
    p = xllamacpp.CommonParams()
    options = {"n_batch": 64, "cache_type_k": "q8_0", "rope_freq_scale": 1, "ctx_shift": True, "sampling.top_k": 7}
    apply_options(p, options | {"flash_attn_type": "enabled", "speculative.types": "ngram_simple"}, xllamacpp)
    assert (p.n_batch, p.rope_freq_scale, p.ctx_shift, p.sampling.top_k) == (64, 1.0, True, 7)
    assert p.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert p.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert [kind.name for kind in p.speculative.types] == ["COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE"]


def test_every_option_allowed_exists() -> None:
    for name in ALLOWED:
        place: object = xllamacpp.CommonParams()
        for part in name.split("."):
            place = getattr(place, part)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"n_bach": 1}, "did you mean 'n_batch'"),
        ({"port": 80}, "no option 'port'"),
        ({"slot_save_path": "/tmp"}, "no option 'slot_save_path'"),
        ({"n_batch": "x"}, "'x', not a whole number"),
        ({"n_batch": True}, "True, not a whole number"),
        ({"n_batch": 1 << 40}, "not a whole number"),
        ({"ctx_shift": 1}, "not true or false"),
        ({"cache_type_k": "q3"}, "one of f32, f16, q4_0"),
        ({"chat_template": 1}, "not a text"),
        ({"speculative.types": "draft_simple"}, "some of none, ngram_simple"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(option: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        apply_options(xllamacpp.CommonParams(), option, xllamacpp)
    assert caught.value.field == f"engine_options.{next(iter(option))}"


def test_names_are_checked_without_the_library() -> None:
    check_options({"n_batch": 1})
    with pytest.raises(Invalid, match="no option"):
        check_options({"x" * 20: 1})
