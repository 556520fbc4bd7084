import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.compose.mix import Mixture, approximate_tokens, draw, source_codes
from atoll.data.engine.compose.split import hash_ids
from atoll.data.engine.curate.plan import Mix

NAMES = ("books", "web")


def drawn(books: list[int], web: list[int], seed: int = 0, **wanted: object) -> Mixture:
    codes = np.array([0] * len(books) + [1] * len(web), np.int32)
    tokens = np.array(books + web, np.int64)
    hashes = hash_ids(pa.array([f"d{number}" for number in range(len(tokens))]))
    return draw(codes, NAMES, tokens, hashes, Mix(**wanted), seed)


def taken(mixture: Mixture) -> dict[str, int]:
    return {portion.source: portion.taken for portion in mixture.portions}


def test_shares_follow_the_weights_within_a_document() -> None:
    mixture = drawn([10] * 300, [10] * 300, tokens=4000, weights=(("web", 3.0),))
    assert taken(mixture) == {"books": 1000, "web": 3000}
    assert mixture.tokens == 4000
    assert set(mixture.times.tolist()) == {0, 1}


def test_without_a_budget_as_much_is_taken_as_the_weights_allow() -> None:
    assert taken(drawn([10] * 50, [10] * 300)) == {"books": 500, "web": 500}
    assert taken(drawn([10] * 50, [10] * 300, weights=(("web", 4.0),))) == {"books": 500, "web": 2000}
    assert taken(drawn([10] * 50, [10] * 300, repeat_max=3.0)) == {"books": 1500, "web": 1500}


def test_a_scarce_source_is_repeated_evenly_up_to_the_limit() -> None:
    mixture = drawn([10] * 10, [10] * 100, tokens=500, repeat_max=2.5)
    assert taken(mixture) == {"books": 250, "web": 250}
    assert sorted(mixture.times[:10].tolist()) == [2] * 5 + [3] * 5
    books = mixture.portions[0]
    assert (books.available, books.wanted, books.documents_taken, books.repeats) == (100, 250, 10, 3)


def test_a_budget_that_is_more_than_there_is_says_what_goes() -> None:
    words = r"5000 tokens .* 2500 of the source 'books', which has 500 .* at most 1 times"
    with pytest.raises(Invalid, match=words) as e:
        drawn([10] * 50, [10] * 300, tokens=5000)
    assert "at most 1000 tokens go" in e.value.hint
    assert "repeat_max to 5" in e.value.hint
    assert drawn([10] * 50, [10] * 300, tokens=5000, repeat_max=5.0).tokens == 5000
    with pytest.raises(Invalid) as e:
        drawn([10] * 50, [10] * 300, tokens=500_000)
    assert (
        e.value.hint == "at most 1000 tokens go with these weights; or set its weight lower"
    )  # 500 times is no option


def test_a_budget_too_small_for_any_document_is_refused() -> None:
    with pytest.raises(Invalid, match="a budget of 4 is too small for any document") as e:
        drawn([30] * 5, [20] * 5, tokens=4, weights=(("web", 3.0),))
    assert e.value.field == "recipe.mix.tokens" and e.value.hint.startswith("at least 27 tokens")
    assert drawn([30] * 5, [20] * 5, tokens=27, weights=(("web", 3.0),)).tokens == 20


def test_a_weight_of_no_source_and_a_source_of_nothing_are_refused() -> None:
    with pytest.raises(Invalid, match=r"'wiki', which is no source .*books, web"):
        drawn([1], [1], weights=(("wiki", 1.0),))
    with pytest.raises(Invalid, match="nothing is left to mix of the source 'web'"):
        drawn([1], [])


def test_another_seed_draws_others() -> None:
    first, second = (drawn([10] * 300, [10] * 300, seed, tokens=1000).times.tolist() for seed in (1, 2))
    assert first != second


def test_sources_are_known_by_what_stands_before_the_colon() -> None:
    sources = pa.chunked_array([["web:a.jsonl", "books:x:y"], ["web:b\n.txt", "web"]], pa.string())
    assert source_codes(sources, NAMES).tolist() == [1, 0, 1, 1]
    with pytest.raises(Invalid, match="of the source 'wiki'"):
        source_codes(pa.array(["wiki:a"]), NAMES)


def test_tokens_are_estimated_by_script() -> None:
    columns = {"characters": [400, 160, 0], "alpha_ratio": [0.95, 0.875, 0.0], "cjk_share": [0.0, 1.0, 0.0]}
    english, chinese, empty = approximate_tokens(pa.record_batch(columns)).tolist()
    assert english == 100
    assert 90 <= chinese <= 120
    assert empty == 1
