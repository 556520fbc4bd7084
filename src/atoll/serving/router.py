"""Which target and which replica take a request: pure choices.

Targets share requests by weight, evenly over any stretch of them, or by session. Within a target: the replica that
computed the longest beginning of the same prompt, or the one a session belongs to, as long as its load stays within
LOAD_FACTOR times the mean (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, SODA 2018, the bound
of its section 1); else the one with the least outstanding requests. Knows nothing of sockets or clocks, nor of what
an engine has meanwhile thrown out of its cache: the table forgets the least recently used beginnings by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar
from zlib import crc32

CIRCUIT_FIRST_S = 0.25
CIRCUIT_LONGEST_S = 2.0
LOAD_FACTOR = 1.25
STRONG_SHARE = 0.5  # below this part of the prompt, a common beginning is not worth a longer wait
HOLDERS_MAX = 4
MARKS_MAX = 16_384
_GOLDEN = 0.6180339887498949


class Candidate(Protocol):
    """What the choice looks at."""

    id: str
    weight: float
    slots: int
    outstanding: int
    broken_until: float


C = TypeVar("C", bound=Candidate)


class Choice(NamedTuple, Generic[C]):
    """A replica and, in words, why it."""

    replica: C
    why: str


# between targets


def spread(weights: Sequence[float], turn: int) -> int:
    """The index that the `turn`-th request goes to; every stretch of n turns gives each its share to within log n.

    The golden-ratio sequence is the one-dimensional sequence of least discrepancy (Knuth, TAOCP 3, 6.4, theorem S).
    The weights must not all be 0.
    """
    return _at(weights, (turn * _GOLDEN) % 1.0)


def stick(weights: Sequence[float], session: bytes) -> int:
    """The index that a session always goes to; sessions share by weight."""
    return _at(weights, crc32(session) / 2**32)


def _at(weights: Sequence[float], point: float) -> int:
    """The index whose part of the whole holds `point`, from 0 to below 1."""
    rest = point * sum(weights)
    last = 0
    for index, weight in enumerate(weights):
        if weight <= 0:
            continue
        if rest < weight:
            return index
        rest -= weight
        last = index
    return last


# between replicas


def usable(replicas: Sequence[C], now: float, tried: Collection[C] = ()) -> list[C]:
    """The untried ones outside their circuit breaks."""
    return [r for r in replicas if r.broken_until <= now and r not in tried]


def choose(
    replicas: Sequence[C], turn: int, *, holders: Sequence[C] = (), share: float = 0.0, session: bytes = b""
) -> Choice[C] | None:
    """One of the `replicas` with a free slot, or None.

    `holders` computed the first `share` of the prompt before. A session is worth more than a prefix.
    """
    free = [r for r in replicas if r.outstanding < r.slots]
    if len(free) <= 1:
        return Choice(free[0], "the only one free" if len(replicas) > 1 else "the only one") if free else None
    if session or (holders and share >= STRONG_SHARE):
        bound = load_bound(replicas)
        if session and (mine := _of_session(free, session, bound)) is not None:
            return Choice(mine, "its session")
        near = [r for r in holders if r in free and (r.outstanding + 1) / r.weight <= bound]
        if near and share >= STRONG_SHARE:
            return Choice(least_outstanding(near, turn), f"it has {share:.0%} of the prompt")
    return Choice(least_outstanding(free, turn), "least outstanding")


def load_bound(replicas: Sequence[C]) -> float:
    """The load per weight that affinity may bring a replica to: LOAD_FACTOR x the mean with this request, + 1."""
    total = sum(r.outstanding for r in replicas) + 1
    return LOAD_FACTOR * total / sum(r.weight for r in replicas) + 1


def least_outstanding(replicas: Sequence[C], turn: int) -> C:
    """The one with the least outstanding requests per weight; ties go round with `turn`."""
    least = float("inf")
    best: list[C] = []
    for replica in replicas:
        load = replica.outstanding / replica.weight
        if load < least:
            least, best = load, [replica]
        elif load == least:
            best.append(replica)
    return best[turn % len(best)]


def _of_session(free: Sequence[C], session: bytes, bound: float) -> C | None:
    """The first replica within the bound in the session's own order of them, the same in every gateway.

    Highest random weight (Thaler, Ravishankar 1998): a replica that comes or goes moves only its own sessions.
    """
    order = sorted(free, key=lambda r: crc32(r.id.encode(), crc32(session)), reverse=True)
    return next((r for r in order if (r.outstanding + 1) / r.weight <= bound), None)


# circuit breaks


def circuit_break_s(failures: int) -> float:
    """How long a replica is left alone after its `failures`-th connect failure in a row (from 1)."""
    assert failures >= 1
    return min(CIRCUIT_FIRST_S * 2.0 ** min(failures - 1, 10), CIRCUIT_LONGEST_S)


def reopens_in_s(replicas: Sequence[C], now: float) -> float:
    """Seconds until the first broken replica may be tried again; 0 when one may be tried now or there is none."""
    return max(0.0, min((r.broken_until for r in replicas), default=now) - now)


# prefixes


def _bounds() -> tuple[int, ...]:
    sizes, size = [], 128.0
    while size < 8 * 1024 * 1024:
        sizes.append(int(size))
        size *= 1.25
    return tuple(sizes)


_BOUNDS = _bounds()


class Beginning(NamedTuple):
    """One beginning of a prompt: how many bytes it has, and their checksum."""

    size: int
    mark: int


def beginnings(text: bytes, seed: int = 0) -> list[Beginning]:
    """The beginnings of a prompt at sizes that grow by a quarter, from 128 bytes, shortest first.

    So a prompt that goes on from another shares with it a beginning of at least 4/5 of the shorter. Different `seed`s
    (other weights, so other caches) share nothing. A false match (32 bits) only costs a worse choice.
    """
    found, at, mark, view = [], 0, seed, memoryview(text)
    for size in _BOUNDS:
        if size > len(text):
            break
        mark = crc32(view[at:size], mark)
        found.append(Beginning(size, mark))
        at = size
    return found


class PrefixTable(Generic[C]):
    """Which replicas computed which beginnings last; bounded, the least recently used are forgotten."""

    __slots__ = ("_holders", "_marks_max")

    def __init__(self, marks_max: int = MARKS_MAX) -> None:
        self._holders: dict[int, tuple[C, ...]] = {}
        self._marks_max = marks_max

    def __len__(self) -> int:
        return len(self._holders)

    def find(self, prompt: Sequence[Beginning], among: Collection[C]) -> tuple[list[C], int]:
        """Those of `among` that have the longest known beginning, and its bytes; none and 0 when nobody has any."""
        for size, mark in reversed(prompt):
            holders = [r for r in self._holders.get(mark, ()) if r in among]
            if holders:
                return holders, size
        return [], 0

    def note(self, prompt: Sequence[Beginning], replica: C) -> None:
        """This replica now computes the prompt. Short beginnings are kept longest: more prompts share them."""
        table = self._holders
        for _, mark in reversed(prompt):
            before = table.pop(mark, ())
            if before and before[0] is replica:
                table[mark] = before
            else:
                table[mark] = (replica, *[r for r in before if r is not replica][: HOLDERS_MAX - 1])
        while len(table) > self._marks_max:
            del table[next(iter(table))]
