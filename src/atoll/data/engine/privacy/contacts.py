"""E-mail addresses, and secrets: keys of known makers, private key blocks, signed tokens, values assigned to key words.

Addresses under names that RFC 2606 and RFC 6761 reserve (example.com, .invalid, .test) are nobody's and not found.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from atoll.data.engine.privacy.kinds import Span

_LATIN = r"A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_LOCAL = re.compile(rf"[{_LATIN}_](?:[{_LATIN}._%+\-]{{0,62}}[{_LATIN}_+\-])?\Z")
_LOCAL_TAIL = re.compile(rf"[{_LATIN}._%+\-]*\Z")
_LABEL = rf"(?:[{_LATIN}](?:[{_LATIN}\-]{{0,61}}[{_LATIN}])?|[\u0400-\u04ff0-9\-]{{1,40}}|[\u4e00-\u9fff]{{1,20}})"
_TOP = (
    r"(?:xn--[A-Za-z0-9]{2,40}|[A-Za-z]{2,24}|\u0440\u0444|\u0443\u043a\u0440"
    r"|中国|中國|公司|网络|網絡|网址|香港|台湾|台灣|集团|商城|广告|公益|在线|中文网|企业)"
)
_DOMAIN = re.compile(rf"(?:{_LABEL}\.){{1,10}}{_TOP}(?!_?[A-Za-z0-9])(?!-[A-Za-z0-9])")
"""Labels of one script each (RFC 5890, and Unicode TR 39): a text in another one goes on right behind."""
_RESERVED = re.compile(r"(?i)(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test|localhost|localdomain|local)\Z")
_NOT_DOMAINS = re.compile(
    r"(?i)\.(?:service|socket|target|mount|timer|slice|device|path|scope|png|jpe?g|gif|svg|webp|css|js|ts|html?|json"
    r"|conf|rst|txt|xml|yaml|yml|dll|exe|java|cpp|hpp|lib|dylib|git|tgz|whl|deb|rpm|jar)\Z"
    r"|\A(?:[^.]+|v?[0-9.]+)\.(?:md|py|sh|so)\Z"
)
"""Names of units and files. Moldova, Paraguay, Saint Helena and Somalia are told from files by one more label."""
_IN_URL = re.compile(r"[a-z][a-z0-9+.\-]{1,15}://[^\s/@:]{1,64}:([^\s/@]{1,128})$", re.I)
_URL_PATH = re.compile(r"://[^\s<>\"'@]*/\Z")
"""What stands before the id of a message in an archive's address."""

_BLOCK = re.compile(
    r"-----BEGIN ([A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?)-----[A-Za-z0-9+/= \t\r\n:,.\-\\()<>]{16,16384}?"
    r"-----END \1-----"
)
_BLOCK_HEAD = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?-----(?:\\n|[ \t\r\n])+"
    r"(?:[A-Za-z0-9+/=]{16,}(?:\\n|[ \t\r\n])*){1,400}"
)
_TOKEN = re.compile(
    r"(?:AKIA|ASIA)[A-Z2-7]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255}|glpat-[\w\-]{20,64}"
    r"|sk-(?:ant-|proj-|svcacct-|or-)?[A-Za-z0-9_\-]{20,200}|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{16,128}"
    r"|AIza[\w\-]{35}|GOCSPX-[\w\-]{20,40}|ya29\.[\w\-]{20,512}|xox[abeoprs]-[A-Za-z0-9\-]{10,250}|xapp-[A-Za-z0-9\-]{20,250}"
    r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[\w\-]{50,300}|dop_v1_[a-f0-9]{64}|SG\.[\w\-]{16,40}\.[\w\-]{16,64}"
    r"|LTAI[A-Za-z0-9]{12,26}|AKID[A-Za-z0-9]{13,40}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|EAACEdEose0cBA[A-Za-z0-9]+"
    r"|dckr_pat_[\w\-]{20,64}|tskey-[a-z]+-[\w\-]{16,64}|AGE-SECRET-KEY-1[A-Z0-9]{58}|hvs\.[\w\-]{24,200}"
    r"|lin_api_[A-Za-z0-9]{32,64}|PMAK-[a-f0-9\-]{40,80}|NRAK-[A-Z0-9]{27}|glsa_[A-Za-z0-9_]{32,64}|sntrys_[\w\-=+/]{32,256}"
    r"|whsec_[A-Za-z0-9+/=]{24,64}|sq0(?:atp|csp)-[\w\-]{22,43}|rubygems_[a-f0-9]{48}|r8_[A-Za-z0-9]{37}|gsk_[A-Za-z0-9]{40,64}"
    r"|nvapi-[\w\-]{40,80}|AQVN[\w\-]{35,40}|atoll_[A-Za-z0-9_\-]{24,128}|key-[a-f0-9]{32}|pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"
    r"|eyJ[\w\-]{10,2048}\.eyJ[\w\-]{4,8192}\.[\w\-]{0,2048}"
)
_KEY_WORD = re.compile(
    r"(?i)(?:(?:api|access|secret|private|auth|client|account|storage|encryption|signing|master|app|shared)"
    r"[ _\-]?key(?:[ _\-]?id)?"
    r"|secret|token|bearer|authorization|credential|(?P<word>password|passwd|passphrase|pwd|pass|密码|密碼|口令)"
    r"|密钥|密鑰|私钥|令牌)['\"\])]{0,2}\s{0,2}\Z"
)
_VALUE = re.compile(
    r"(?:=?[>=])?\s{0,2}(?:Bearer |Basic |token )?(['\"`]?)([A-Za-z0-9+/_=.~!@#$%^&*\-]{6,256})\1", re.I
)
_WORD_VALUE = re.compile(r"(?:是|为|為|设置为|改为|=|:|[ \t]){0,4}(['\"`]?)([A-Za-z0-9+/_=.~!@#$%^&*\-]{6,64})\1")
_CODE = re.compile(
    r"[A-Za-z_][A-Za-z_]*(?:[.\-_][A-Za-z_]+)*[;,.]*|\$.*|[%&].*|.*\.(?:get|env|py|txt|conf|md|html?)\b.*|[/.~].*|0x.*|https?.*"
)
_MAILBOX = re.compile(r"[^@]+@(?:[A-Za-z0-9\-]+\.)+[A-Za-z]+")
_ENTROPY_MIN = 3.0
_SECRET_LENGTH_MIN = 16


def emails(text: str, start: int, stop: int) -> Iterator[Span]:
    """The address around the @, or the %40 of a URL, from `start` on; a password before it in a URL is a secret."""
    place, after = start, start + (3 if text[start] == "%" else 1)
    in_url = text.rfind("://", max(0, place - 220), place) >= 0
    inside = _IN_URL.search(text, max(0, place - 220), place) if in_url else None
    if inside:
        domain = _DOMAIN.match(text, after)
        reserved = domain is not None and _RESERVED.search(domain[0])
        if not reserved and not re.match(r"[<$\[{%*]|pass|xxx|\.\.\.", inside[1], re.I):
            yield Span(inside.start(1), place, "secret")
        return
    before = text[max(0, place - 80) : place]
    tail = _LOCAL_TAIL.search(before)
    local = _LOCAL.match(before, tail.start() if tail else len(before))
    if local and in_url and _URL_PATH.search(text, max(0, place - 220), place - len(local[0])):
        return
    domain = _DOMAIN.match(text, after)
    if not local or not domain or ".." in local[0]:
        return
    if _RESERVED.search(domain[0]) or _NOT_DOMAINS.search(domain[0]) or _is_remote_shell(text, domain.end(), local[0]):
        return
    is_emphasised = text[domain.end() : domain.end() + 1] == "_"
    length = len(local[0].lstrip("_")) if is_emphasised else len(local[0])
    yield Span(place - length, domain.end(), "email")


def _is_remote_shell(text: str, stop: int, local: str) -> bool:
    """git@host:path names a repository, not a person."""
    return local in ("git", "hg", "svn", "root", "anonymous", "anoncvs") and text[stop : stop + 1] in (":", "/")


def blocks(text: str, start: int, stop: int) -> Iterator[Span]:
    """A private key in armour, whole or cut off."""
    ends = text.find("-----END", stop) >= 0
    found = (_BLOCK.match(text, start) if ends else None) or _BLOCK_HEAD.match(text, start)
    if found:
        yield Span(start, found.end(), "secret")


def tokens(text: str, start: int, stop: int) -> Iterator[Span]:
    """A key whose maker is known by its beginning."""
    found = _TOKEN.match(text, start)
    if found and _is_random(found[0]) and not re.match(r"[A-Za-z0-9_]", text[found.end() : found.end() + 1]):
        yield Span(start, found.end(), "secret")


def assigned(text: str, start: int, stop: int) -> Iterator[Span]:
    """The value given to a word for a key or a password; `start` to `stop` is the sign between them."""
    word = _KEY_WORD.search(text[max(0, start - 40) : start]) or _KEY_WORD.search(text[max(0, start - 40) : stop])
    if word is None:
        return
    is_chinese = text[stop - 1] not in ":="
    found = (_WORD_VALUE if is_chinese else _VALUE).match(text, stop)
    if found is None:
        return
    value = found[2].rstrip(".,;")
    if text[found.end(2) : found.end(2) + 1] in ("(", "[", "{"):
        return
    if _is_secret(value, word["word"] is not None, bool(found[1])):
        yield Span(found.start(2), found.start(2) + len(value), "secret")


def _is_secret(value: str, is_password: bool, quoted: bool) -> bool:
    """A password has letters with digits or signs; another secret is long and random."""
    if _CODE.fullmatch(value) or _MAILBOX.fullmatch(value):
        return False
    if re.search(r"(?i)x{4}|example|changeme|your|\*{3}|\.{3}|1234567?8?9?0?$", value):
        return False
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", r"\d", r"[^A-Za-z0-9_.]"))
    if is_password:
        return kinds >= 2 and bool(re.search(r"\d", value)) and bool(re.search("[A-Za-z]", value))
    return len(value) >= _SECRET_LENGTH_MIN and _is_random(value) and sum(map(str.isdigit, value)) >= 2


def _is_random(value: str) -> bool:
    """Shannon entropy of the characters, bits each; words and repeats have less than keys. Long values need a digit."""
    counts = Counter(value).values()
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return entropy >= _ENTROPY_MIN and any(map(str.isdigit, value))
