"""Any mixture keeps to its weights, its budget and its limits, whatever the order of the documents."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.data.engine.compose.mix import draw
from atoll.data.engine.compose.split import hash_ids
from atoll.data.engine.curate.plan import Mix

DOCUMENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 500)), min_size=1, max_size=80)
WEIGHTS = st.tuples(*[st.floats(0.1, 10)] * 3)


@settings(deadline=None)
@given(DOCUMENTS, WEIGHTS, st.floats(0.01, 1), st.floats(1, 4), st.integers(0, 2**63 - 1), st.randoms())
def test_shares_and_budget_are_met_within_a_document(documents, weights, share, repeat_max, seed, random) -> None:
    names = [f"s{code}" for code in sorted({code for code, _ in documents})]
    codes = np.array([names.index(f"s{code}") for code, _ in documents], np.int32)
    tokens = np.array([count for _, count in documents], np.int64)
    hashes = hash_ids(pa.array([f"d{number}" for number in range(len(documents))]))
    given_weights = tuple(zip(names, weights, strict=False))

    most = draw(codes, names, tokens, hashes, Mix(None, given_weights, repeat_max), seed)
    largest = tokens.max()
    budget = max(1, int(share * sum(portion.wanted for portion in most.portions)) - len(names))
    try:
        mixture = draw(codes, names, tokens, hashes, Mix(budget, given_weights, repeat_max), seed)
    except Invalid as refused:  # too small for any document
        assert budget < int(refused.hint.split()[2])
        return
    whole = sum(weights[: len(names)])
    for portion, (_, weight) in zip(mixture.portions, given_weights, strict=True):
        assert abs(portion.taken - budget * weight / whole) <= largest + 1
        assert portion.taken == (mixture.times * tokens)[codes == names.index(portion.source)].sum()
    assert abs(mixture.tokens - budget) <= largest + len(names)
    assert mixture.times.max() <= np.ceil(repeat_max)

    order = np.array(random.sample(range(len(documents)), len(documents)))
    again = draw(codes[order], names, tokens[order], hashes[order], Mix(budget, given_weights, repeat_max), seed)
    assert again.times.tolist() == mixture.times[order].tolist()
    assert again.portions == mixture.portions


@settings(deadline=None, max_examples=30)
@given(DOCUMENTS, st.floats(1, 4))
def test_a_budget_beyond_what_there_is_names_one_that_goes(documents, repeat_max) -> None:
    codes = np.zeros(len(documents), np.int32)
    tokens = np.array([count for _, count in documents], np.int64)
    hashes = hash_ids(pa.array([f"d{number}" for number in range(len(documents))]))
    try:
        draw(codes, ["s0"], tokens, hashes, Mix(int(tokens.sum() * repeat_max) + 1, (), repeat_max), 0)
        raise AssertionError("it was not refused")
    except Invalid as refused:
        most = int(refused.hint.split()[2])
    assert draw(codes, ["s0"], tokens, hashes, Mix(most, (), repeat_max), 0).times.max() <= np.ceil(repeat_max)
