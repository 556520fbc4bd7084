import re

import pyarrow as pa
import pytest

from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.quality.conditions import evaluate
from atoll.data.rules import parse_expression
from atoll.data.rulesets import RULE_SETS

PROSE = (
    "The harbour of the old town lies to the west of the river, and most of its boats belong to families that have "
    "fished there for many generations.\nThey leave before dawn with their nets, their lamps and a little bread.\n"
    "By noon the market is open, and people from the villages come to buy what the sea gave them that day.\n"
    "Nobody can say how long this will last! Young people prefer to work in the city, where wages are better.\n"
    "Still, some return every summer, and their children learn to row before they learn to read and write.\n"
)


def _dropping(text: str) -> set[str]:
    """The rules of all sets that drop a text."""
    notes = annotate(pa.array([text]), Wanted()).notes
    every = [rule for rules in RULE_SETS.values() for rule in rules]
    return {name for name, drop in every if evaluate(parse_expression(drop), notes)[0]}


def test_prose_passes_every_rule() -> None:
    assert _dropping(PROSE) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Too short. " * 5, "gopher_few_words"),
        ("a b c d e " * 20, "gopher_short_words"),
        ("incomprehensibilities " * 60, "gopher_long_words"),
        (PROSE + "# " * 40, "gopher_symbols"),
        ("- a line of the list\n" * 20, "gopher_bullets"),
        ("a line of the list...\n" * 20, "gopher_ellipsis_lines"),
        ("12 34 56 word " * 20, "gopher_few_alphabetic_words"),
        ("wind water stone " * 30, "gopher_few_stop_words"),
        (PROSE * 2, "gopher_repeated_lines"),
        ((PROSE + "\n") * 2, "gopher_repeated_paragraphs"),
        ("again and again " * 30, "gopher_top_2_gram"),
        (PROSE + PROSE.replace("\n", " "), "gopher_repeated_10_grams"),
        (PROSE + "Lorem ipsum dolor sit amet.", "c4_lorem_ipsum"),
        (PROSE + "It is written { like this }.", "c4_curly_bracket"),
        ("One sentence is here. Another is there.", "c4_few_sentences"),
        (PROSE.replace(".", ","), "fineweb_unfinished_lines"),
        (PROSE.replace(" ", "\n"), "fineweb_short_lines"),
        (PROSE + PROSE.splitlines()[0], "fineweb_repeated_lines"),
        (PROSE.replace(" ", "\n"), "fineweb_lists"),
    ],
)
def test_a_text_made_for_a_rule_is_dropped_by_it(text: str, rule: str) -> None:
    assert rule in _dropping(text)


def test_names_are_rules_and_none_is_in_two_sets() -> None:
    names = [name for rules in RULE_SETS.values() for name, _ in rules]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) for name in names)
