"""Documents of one URL: URLs are brought to one form (RFC 3986, 6.2) and compared.

The form: scheme and host in lower case, no default port, no user, no fragment, dot segments resolved, percent-encoding
only where it is needed and in upper case, no tracking parameters, no slash at the end, an empty query left out. The
order of parameters stays, for it may matter; http and https stay two, and so do hosts with and without `www.`.
What a server makes of a URL is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

import numpy as np
import xxhash
from numpy.typing import NDArray

from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.exact import Indices, grouped
from atoll.data.engine.runtimes.stages import Stages

KEYS = "urls.u64"

TRACKING = frozenset(
    {
        *("fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "ysclid", "twclid", "ttclid"),
        *("li_fat_id", "igshid", "igsh", "mc_cid", "mc_eid", "mkt_tok", "_hsenc", "_hsmi", "oly_anon_id", "oly_enc_id"),
        *("vero_id", "wickedid", "rb_clickid", "s_cid", "_openstat", "spm", "scm", "share_token", "bd_vid", "hmsr"),
        *("_ga", "_gl", "ref_src", "ref_url", "cmpid", "srsltid", "epik", "zanpid"),
    }
)
"""Parameters that tell where a visitor came from, not what is shown; so do those that begin with a PREFIX."""
TRACKING_PREFIXES = ("utm_", "pk_", "piwik_", "mtm_", "matomo_", "hsa_", "ga_", "stm_", "at_custom")

_PORTS = {"http": 80, "https": 443, "ftp": 21}
_SAFE = "!$&'()*+,;=:@/-._~"
_NAMES_A_PAGE = re.compile(r"\S*://\S|(?:urn|doi):\S|[\w\-]+(?:\.[\w\-]+)+(?:[:/?]|$)")
"""What is equal where this does not match (N/A, unknown, a lone fragment) says nothing of the documents."""
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")


def groups(corpus: Corpus, stages: Stages) -> Indices:
    """For every document the first document with an equal canonical URL; one without a URL is alone."""
    folders = stages.map("dedup-urls", _note_keys, list(corpus))
    keys = [raw.read(folder / KEYS, np.uint64).reshape(-1, 2) for folder in folders]
    together = np.concatenate(keys) if keys else np.empty((0, 2), np.uint64)
    result, _ = grouped(together[:, 0], together[:, 1])
    alone = ~together.any(axis=1)
    result[alone] = np.flatnonzero(alone)
    return result


def keys_of(urls: Sequence[str]) -> NDArray[np.uint64]:
    """uint64 (urls, 2): the digest of each canonical URL; zeros where there is none, or what is there names no page."""
    digests = b"".join(_digest(canonical(url)) for url in urls)
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def _digest(form: str) -> bytes:
    return xxhash.xxh3_128_digest(form.encode()) if _NAMES_A_PAGE.match(form) else bytes(16)


def canonical(url: str) -> str:
    """The one form of `url`; what is not a URL of a host is only stripped of white space and its fragment."""
    bare = url.strip().partition("#")[0]
    try:
        parts = urlsplit(bare)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port or an address that is none
        return bare
    if not host:
        return bare
    place = "" if port is None or port == _PORTS.get(parts.scheme) else f":{port}"
    host = f"[{host}]" if ":" in host else host.rstrip(".")
    query = "&".join(_escaped(item, "?") for item in parts.query.split("&") if item and not _is_tracking(item))
    return f"{parts.scheme}://{host}{place}{_path(parts.path)}{'?' if query else ''}{query}"


def _path(path: str) -> str:
    if _DOTS.search(path):
        kept: list[str] = []
        for segment in path.split("/"):
            if segment == "..":
                del kept[max(1, len(kept) - 1) :]
            elif segment != ".":
                kept.append(segment)
        path = "/".join(kept)
    return _escaped(path, "").rstrip("/")


def _escaped(text: str, also_safe: str) -> str:
    """Percent-encoding where it is needed, and only there. An escaped delimiter is not the delimiter: it stays."""
    if text.isalnum() and text.isascii():
        return text
    parts = re.split(r"(%(?:2[1346789ABCFabcf]|3[ABDFabdf]|40|5[BDbd]|25))", text)
    safe = _SAFE + also_safe
    return "".join(
        part.upper() if place % 2 else quote(unquote_to_bytes(part), safe=safe) for place, part in enumerate(parts)
    )


def _is_tracking(item: str) -> bool:
    name = item.partition("=")[0].lower()
    return name in TRACKING or name.startswith(TRACKING_PREFIXES)


def _note_keys(batch: Batch, folder: Path) -> None:
    raw.write(folder / KEYS, keys_of(batch.documents.column("url").to_pylist()))
