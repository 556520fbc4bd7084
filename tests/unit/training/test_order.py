"""The data order: a function of the seed and the position, complete in every epoch, full in every sequence."""

import random

import pytest

from atoll.training.engine.order import Order, Packed, pack, permutation

LENGTHS = [random.Random(1).randint(5, 60) for _ in range(300)]


def _order(seed: int = 0, text_share: float = 0.0) -> Order:
    return Order(LENGTHS, 100, [80] * 10, 128, text_share, seed)


def test_any_stretch_is_the_same_wherever_one_begins() -> None:
    whole = _order().sequences(0, 400)
    assert _order().sequences(250, 60) == whole[250:310]
    order = _order()
    order.sequences(390, 5)
    assert order.sequences(10, 5) == whole[10:15]


def test_another_seed_is_another_order() -> None:
    assert _order(1).sequences(0, 20) != _order(2).sequences(0, 20)


def test_every_epoch_holds_every_row_once_in_an_order_of_its_own() -> None:
    order = _order()
    length = order.epoch_length()
    first = [row for packed in order.sequences(0, length) for row in packed.rows]
    assert sorted(first) == list(range(len(LENGTHS)))
    assert permutation(300, 0, 0) != permutation(300, 0, 1)
    assert permutation(300, 0, 0, stream=0) != permutation(300, 0, 0, stream=1)


def test_sequences_hold_no_more_than_their_room_and_are_nearly_full() -> None:
    packed = pack(permutation(300, 0, 0), LENGTHS, 100)
    filled = [sum(LENGTHS[row] for row in rows) for rows in packed]
    assert max(filled) <= 100
    assert sum(filled) / (100 * len(packed)) > 0.9


def test_an_example_that_fills_a_sequence_stands_alone() -> None:
    assert pack([0, 1, 2], [100, 100, 1], 100) == [(0,), (1,), (2,)]


def test_text_takes_its_stated_share() -> None:
    sequences = _order(text_share=0.25).sequences(0, 400)
    assert sum(packed.is_text for packed in sequences) == 100
    assert Packed((1,), is_text=True) in sequences


def test_a_share_of_text_lengthens_the_epoch() -> None:
    assert _order(text_share=0.5).epoch_length() == 2 * _order().epoch_length()


def test_an_example_larger_than_a_sequence_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="row 0 has 101 tokens"):
        pack([0], [101], 100)
