import pytest

from atoll.data.engine.characters import (
    AFTER,
    BEFORE,
    CJK,
    DIGIT,
    ENDING,
    HASH,
    ICON,
    INSIDE,
    LATIN,
    LETTER,
    LOWER,
    MARK,
    NUMERAL,
    PUNCTUATION,
    SINGLE,
    SPACE,
    UPPER,
    WORD,
    characters,
)

SCRIPTS = WORD | SINGLE | LETTER | DIGIT | SPACE | LATIN | CJK


@pytest.mark.parametrize(
    ("character", "kind"),
    [
        ("a", WORD | LETTER | LATIN),
        ("É", WORD | LETTER | LATIN),
        ("я", WORD | LETTER),
        ("7", WORD | DIGIT),
        ("٣", WORD | DIGIT),
        ("½", WORD),
        ("_", WORD),
        ("\u0301", WORD),
        ("中", SINGLE | LETTER | CJK),
        ("の", SINGLE | LETTER | CJK),
        ("々", SINGLE | LETTER | CJK),
        ("\U00020000", SINGLE | LETTER | CJK),
        ("한", WORD | LETTER | CJK),
        ("ก", SINGLE | LETTER),
        (" ", SPACE),
        ("\n", SPACE),
        ("\u3000", SPACE),
        (".", 0),
        ("。", 0),
        ("\U0001f600", 0),
    ],
)
def test_a_character_has_its_kind(character: str, kind: int) -> None:
    assert characters().kinds[ord(character)] & SCRIPTS == kind


@pytest.mark.parametrize(
    ("character", "kind"),
    [
        ("a", LOWER),
        ("A", UPPER),
        ("中", LOWER | UPPER),
        ("7", NUMERAL),
        ("٣", 0),
        (".", INSIDE | MARK | PUNCTUATION | ENDING),
        ("。", BEFORE | AFTER | MARK | PUNCTUATION | ENDING),
        ("/", INSIDE | MARK | PUNCTUATION),
        ("•", PUNCTUATION),
        ("#", BEFORE | AFTER | MARK | PUNCTUATION | HASH),
        ("\U0001f600", BEFORE | AFTER | INSIDE | ICON),
    ],
)
def test_a_character_has_its_marks(character: str, kind: int) -> None:
    assert int(characters().kinds[ord(character)]) & ~SCRIPTS == kind


def test_equal_kinds_are_one_class() -> None:
    tables = characters()
    assert (tables.flags[tables.classes] == tables.kinds).all()


@pytest.mark.parametrize(("upper", "lower"), [("A", "a"), ("Ä", "ä"), ("Я", "я"), ("ß", "ß"), ("İ", "İ"), ("中", "中")])
def test_lower_case_is_one_character_for_one(upper: str, lower: str) -> None:
    assert chr(characters().lower[ord(upper)]) == lower


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        characters().kinds[0] = 1
