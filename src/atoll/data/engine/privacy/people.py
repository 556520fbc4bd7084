"""Names of people: a surname or a capitalised word is a name only beside a word that says so.

Dictionary and context, no model: names without a title, a label or an entry in the list of the recipe are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import combining, normalize

from atoll.data.engine.privacy.anchors import COMPOUND_SURNAMES, SURNAMES
from atoll.data.engine.privacy.kinds import Span

TITLES = "先生|女士|小姐|同志|老师|教授|医生|大夫|经理|主任|律师|师傅|博士"

GIVEN_NAMES = frozenset(
    {
        *("james", "mary", "john", "patricia", "robert", "jennifer", "michael", "linda", "william", "elizabeth"),
        *("david", "barbara", "richard", "susan", "joseph", "jessica", "thomas", "sarah", "charles", "karen"),
        *("christopher", "lisa", "daniel", "nancy", "matthew", "betty", "anthony", "margaret", "mark", "sandra"),
        *("donald", "ashley", "steven", "kimberly", "paul", "emily", "andrew", "donna", "joshua", "michelle"),
        *("kenneth", "carol", "kevin", "amanda", "brian", "dorothy", "george", "melissa", "edward", "deborah"),
        *("ronald", "stephanie", "timothy", "rebecca", "jason", "sharon", "jeffrey", "laura", "ryan", "cynthia"),
        *("jacob", "kathleen", "gary", "amy", "nicholas", "angela", "eric", "shirley", "jonathan", "anna"),
        *("stephen", "brenda", "larry", "pamela", "justin", "emma", "scott", "nicole", "brandon", "helen"),
        *("benjamin", "samantha", "samuel", "katherine", "gregory", "christine", "frank", "debra", "alexander"),
        *("rachel", "raymond", "carolyn", "patrick", "janet", "jack", "catherine", "dennis", "maria", "jerry"),
        *("heather", "tyler", "diane", "aaron", "ruth", "jose", "julie", "adam", "olivia", "nathan", "joyce"),
        *("henry", "virginia", "douglas", "victoria", "zachary", "kelly", "peter", "lauren", "kyle", "christina"),
        *("ethan", "joan", "walter", "evelyn", "noah", "judith", "jeremy", "megan", "christian", "andrea"),
        *("keith", "cheryl", "roger", "hannah", "terry", "jacqueline", "austin", "martha", "sean", "gloria"),
        *("gerald", "teresa", "carl", "ann", "harold", "sara", "dylan", "madison", "arthur", "frances"),
        *("lawrence", "kathryn", "jordan", "janice", "jesse", "jean", "bryan", "alice", "billy", "julia", "bruce"),
        *("grace", "albert", "judy", "gabriel", "sophia", "willie", "theresa", "alan", "denise", "wayne", "amber"),
        *("juan", "doris", "louis", "marilyn", "russell", "danielle", "ralph", "beverly", "roy", "isabella"),
        *("eugene", "diana", "randy", "natalie", "vincent", "brittany", "philip", "charlotte", "bobby", "rose"),
        *("johnny", "kayla", "logan", "alexis", "martin", "simon", "oliver", "stefan", "wolfgang", "hans"),
        *("klaus", "pierre", "jacques", "luis", "carlos", "miguel", "pedro", "antonio", "giovanni", "marco"),
        *("luca", "ivan", "sergei", "dmitri", "alexei", "olga", "natasha", "anil", "raj", "ravi", "priya"),
        *("ahmed", "mohammed", "muhammad", "fatima", "ali", "omar", "hiroshi", "kenji", "yuki", "takashi", "wei"),
        *("ming", "jing", "li", "na", "fang", "lei", "bob", "tom", "jim", "joe"),
    }
)
STAND_IN_SURNAMES = ("Doe", "Roe", "Poe", "Noakes")
"""Surnames of nobody: what pseudonyms are made of, and what is no finding."""

_GIVEN_NEVER = set(
    "的了是在和有不这那为也就都而及与或之其于以到说要去会着没看好自己么什只被从把让给对向请我你他她它们个位名某"
)
_APART_NEVER = set("男女译著编等")
_ZH_LETTER = r"[\u4e00-\u9fff]"
_ZH_AFTER = re.compile(
    r"(?:叫|姓名|名|人|者|户|辑|办)?\s{0,2}(?:是|为)?\s{0,2}[:=]?\s{0,4}("
    + _ZH_LETTER
    + r"(?:[\u4e00-\u9fff·]{1,3}| {1,2}"
    + _ZH_LETTER
    + "))(?!"
    + _ZH_LETTER
    + ")"
)
"""A name behind its label; those of two characters are set apart in forms."""
_ZH_NEXT = re.compile(f"[、/] ?({_ZH_LETTER}{{2,4}})(?!{_ZH_LETTER})")
_ZH_NAMES_MAX = 5
_ZH_STRONG = re.compile(r"^(?:我叫|名叫)\Z")
_UPPER = r"[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_LOWER = r"[a-z\u00df-\u00f6\u00f8-\u024f]"
_WORD = f"{_UPPER}{_LOWER}+"
_EN_NAME = (
    rf"{_WORD}(?:-{_WORD})?(?: (?:{_UPPER}\.|{_WORD}|de|van|von|der|la|bin|al)){{0,2}}"
    rf"(?: {_UPPER}(?:{_LOWER}|')+(?:-?{_WORD})?)"
)
_EN_TITLED = re.compile(rf"(?:{_UPPER}\. ?){{0,2}}(?:{_WORD} ){{0,2}}(?:(?:Mc|Mac|O'|De)?{_WORD})(?:-{_WORD})?")
_EN_TITLE = re.compile(r"(?:Mrs?|Ms|Miss|Dr|Prof)\.?")
_EN_LABELLED = re.compile(rf"[ '\"*]{{0,4}}({_EN_NAME})(?!{_UPPER}|{_LOWER})")
_EN_STRONG = re.compile(
    r"(?i)(?:full name|patient(?: name)?|employee(?: name)?|customer name"
    r"|(?:signed-off|reviewed|acked|tested|reported|suggested"
    r"|co-developed)-by"
    r"|attn|dear|applicant|contact person|account holder|emergency contact|beneficiary)[\"'*)]{0,2}\s?\Z"
)
_EN_WEAK = re.compile(
    r"(?i)(?:(?<![A-Za-z])name|contact|author|from|owner|maintainer|customer|employee|person|sender|holder|by)[\"'*)]{0,2}\s?\Z"
)
_NOT_PEOPLE = frozenset(
    {
        *("The", "This", "That", "These", "Those", "Street", "Road", "Avenue", "University", "Institute"),
        *("Company", "Corporation", "Inc", "Foundation", "Project", "Team", "Group", "Department", "Monday"),
        *("Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "January", "February", "March"),
        *("April", "May", "June", "July", "August", "September", "October", "November", "December", "Linux"),
        *("Windows", "Google", "Microsoft", "Apache", "Debian", "If", "When", "In", "On", "At", "For", "And"),
        *("But", "It", "He", "She", "We", "You", "I", "No", "Yes", "Not", "Please", "Thank", "Thanks", "Note"),
        *("See", "Is", "Are", "Was", "New", "Old", "File", "Error", "Server", "Chrome", "Firefox", "Author"),
        *("Co-Author", "Minister", "President", "Name", "Example", "Test"),
    }
)


def persons(text: str, start: int, stop: int) -> Iterator[Span]:
    """The Chinese name before a title or after a label; `start` to `stop` is that word."""
    if re.match(TITLES, text[start:stop]):
        yield from _before_title(text, start)
        return
    found = _ZH_AFTER.match(text, stop)
    if found is None:
        return
    separated = found.start(1) > stop
    if not separated and not _ZH_STRONG.match(text[start:stop]):
        return
    for _ in range(_ZH_NAMES_MAX):
        if found is None or not is_chinese_name(found[1]):
            return
        yield Span(found.start(1), found.end(1), "name")
        found = _ZH_NEXT.match(text, found.end())


def _before_title(text: str, start: int) -> Iterator[Span]:
    for length in (4, 3, 2):
        name = text[max(0, start - length) : start]
        if len(name) == length and is_chinese_name(name) and not _is_inside(text, start - length, name):
            yield Span(start - length, start, "name")
            return


def _is_inside(text: str, start: int, name: str) -> bool:
    """A two-character name whose first character more likely ends the word before it."""
    before = text[start - 1 : start]
    return len(name) == 2 and bool(re.match(_ZH_LETTER, before)) and before in SURNAMES


def is_chinese_name(name: str) -> bool:
    """A surname of the list and one or two more characters that may stand in a name, or one set apart by spaces."""
    if " " in name:
        name = name.replace(" ", "")
        if name[-1] in _APART_NEVER:
            return False
    if name[:2] in COMPOUND_SURNAMES and len(name) in (3, 4):
        given = name[2:]
    elif name[:1] in SURNAMES and len(name) in (2, 3):
        given = name[1:]
    else:
        return False
    return not set(given) & _GIVEN_NEVER and re.fullmatch(_ZH_LETTER + "+", given) is not None


def titled(text: str, start: int, stop: int) -> Iterator[Span]:
    """The English name behind Mr, Mrs, Ms, Dr or Prof."""
    found = _EN_TITLED.match(text, stop + 1)
    if found and _EN_TITLE.fullmatch(text, start, stop) and _is_person(found[0]):
        yield Span(found.start(), found.end(), "name")


def labelled(text: str, start: int, stop: int) -> Iterator[Span]:
    """The name behind `name:` and the like: any behind a label of people, a known given name behind other labels."""
    before = text[max(0, start - 32) : start]
    after = _ZH_AFTER.match(text, stop)
    if after and re.search(r"(?i)(?<![A-Za-z])name[\"'*)]{0,2}\s?$", before) and is_chinese_name(after[1]):
        yield Span(*after.span(1), "name")
        return
    found = _EN_LABELLED.match(text, stop)
    if found is None or not _is_person(found[1]):
        return
    known = _without_accents(found[1].split()[0]).lower() in GIVEN_NAMES
    if _EN_STRONG.search(before) or (known and _EN_WEAK.search(before)):
        yield Span(*found.span(1), "name")


def _without_accents(word: str) -> str:
    return "".join(letter for letter in normalize("NFD", word) if not combining(letter))


def _is_person(name: str) -> bool:
    words = name.split()
    return not set(words) & _NOT_PEOPLE and words[-1] not in STAND_IN_SURNAMES and len(words[-1]) > 1
