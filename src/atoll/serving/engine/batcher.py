"""Answers of a causal model computed together: continuous batching at token steps, on any model of transformers.

Requests join and leave between steps. A prompt is computed in chunks, one between two steps, so that those who are
generating go on. Rows of one batch share a cache padded at the left; a model whose cache cannot be padded so (sliding
windows, recurrent states) gets a batch for each row, and its rows take turns at token steps. At most `slots` rows are
computed; the others wait in order. Nothing of a finished prompt is kept. All computing is in one thread.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from atoll.core.errors import AtollError, Unavailable
from atoll.serving.engine.generation import Generation, Piece
from atoll.serving.engine.sampling import choose, likelihood

PREFILL_TOKENS = 512
WAITING_MAX = 4096
STUCK_AFTER_S = 300.0
_COMPUTE_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError, NotImplementedError)


@dataclass
class Batch:
    """Rows computed in one step: their answers, and the keys and values of what they are so far.

    `lengths` are the rows' own; the cache is as wide as the longest, others are padded at its left.
    """

    rows: list[Generation]
    lengths: list[int]
    cache: Any

    @property
    def width(self) -> int:
        return max(self.lengths)

    def absorb(self, other: Batch) -> None:
        """Take the rows of `other`."""
        width = max(self.width, other.width)
        for own, new in zip(self.cache.layers, other.cache.layers, strict=True):
            own.keys = torch.cat([_padded(own.keys, width), _padded(new.keys, width)])
            own.values = torch.cat([_padded(own.values, width), _padded(new.values, width)])
        self.rows += other.rows
        self.lengths += other.lengths

    def keep(self, places: list[int]) -> None:
        """Drop the other rows, and padding that no row needs any more."""
        self.rows = [self.rows[place] for place in places]
        self.lengths = [self.lengths[place] for place in places]
        if not places or not _is_plain(self.cache):
            return
        for layer in self.cache.layers:
            layer.keys = layer.keys[places, :, -self.width :]
            layer.values = layer.values[places, :, -self.width :]


@dataclass
class Prefill:
    """A prompt being computed."""

    row: Generation
    cache: Any
    done: int = 0


Delivery = list[tuple[Generation, Piece]]


def deliver_here(delivery: Delivery) -> None:
    """Hand every piece to its answer."""
    for generation, piece in delivery:
        generation.receive(piece)


class Batcher:
    """The computing thread. `submit` and `call` may be used from any thread.

    `deliver` gets what came of all rows in a step at once: waking another thread for each token costs more than a
    small model's step.
    """

    def __init__(self, model: Any, slots: int, deliver: Callable[[Delivery], None] = deliver_here) -> None:
        self._model, self._slots, self._deliver = model, slots, deliver
        self._out: Delivery = []
        parameters = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._waiting: deque[Generation] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._prefills: list[Prefill] = []
        self._batches: list[Batch] = []
        self._wake = threading.Condition()
        self._is_closed = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> Batcher:
        """Begin to compute."""
        self._thread.start()
        return self

    def submit(self, generation: Generation) -> None:
        """Queue an answer; Unavailable when too many wait."""
        with self._wake:
            if len(self._waiting) >= WAITING_MAX:
                raise Unavailable(f"{WAITING_MAX} answers are waiting already")
            self._waiting.append(generation)
            self._wake.notify()

    def call(self, job: Callable[[], None]) -> None:
        """Run `job` between two steps; it must not raise."""
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    def check(self) -> None:
        """Unavailable when the thread is dead or has been in one step for too long."""
        since = self._busy_since
        if not self._thread.is_alive():
            raise Unavailable("the computing thread has ended")
        if since is not None and time.monotonic() - since > STUCK_AFTER_S:
            raise Unavailable(f"one step has taken more than {STUCK_AFTER_S:g} s")

    def close(self) -> None:
        """End the thread after the step it is in."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()

    # -- the computing thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        with torch.inference_mode():
            while self._admit():
                self._busy_since = time.monotonic()
                if self._prefills:
                    self._guarded(self._prefill, self._prefills[0], [self._prefills[0].row])
                for batch in list(self._batches):
                    self._guarded(self._step, batch, batch.rows)
                self._batches = [batch for batch in self._batches if batch.rows]
                if self._out:
                    out, self._out = self._out, []
                    self._deliver(out)
                self._busy_since = None

    def _admit(self) -> bool:
        """Take what waits, as far as there are slots; sleep while there is nothing to do. False when closed."""
        with self._wake:
            self._wake.wait_for(lambda: self._is_closed or self._jobs or self._waiting or self._is_computing)
            jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
            while self._waiting and len(self._prefills) + sum(len(b.rows) for b in self._batches) < self._slots:
                row = self._waiting.popleft()
                if not row.is_cancelled:
                    self._prefills.append(Prefill(row, DynamicCache(config=self._model.config)))
        for job in jobs:
            job()
        return not self._is_closed

    @property
    def _is_computing(self) -> bool:
        return bool(self._prefills or self._batches)

    def _guarded(self, work: Callable[[Any], None], what: Any, rows: list[Generation]) -> None:
        """A failure of the model ends the rows it was computing, not the thread."""
        try:
            work(what)
        except _COMPUTE_ERRORS as error:
            for row in rows:
                failed = AtollError(f"the model failed: {type(error).__name__}: {error}")
                self._out.append((row, Piece("", error=failed)))
            self._prefills = [prefill for prefill in self._prefills if prefill is not what]
            self._batches = [batch for batch in self._batches if batch is not what]

    def _prefill(self, prefill: Prefill) -> None:
        """Compute the next chunk of a prompt; after the last one the row joins the others."""
        row = prefill.row
        if row.is_cancelled:
            self._prefills.remove(prefill)
            return
        chunk = list(row.prompt[prefill.done : prefill.done + PREFILL_TOKENS])
        logits = self._forward([chunk], [prefill.done], None, prefill.cache)
        prefill.done += len(chunk)
        if prefill.done < len(row.prompt):
            return
        self._prefills.remove(prefill)
        if not self._choose(row, logits[0]):
            self._join(Batch([row], [prefill.done], prefill.cache))

    def _join(self, new: Batch) -> None:
        if self._batches and _is_plain(new.cache):
            self._batches[0].absorb(new)
        else:
            self._batches.append(new)

    def _step(self, batch: Batch) -> None:
        """One token for every row."""
        living = [place for place, row in enumerate(batch.rows) if not row.is_cancelled]
        if len(living) < len(batch.rows):
            batch.keep(living)
        if not living:
            return
        width, mask = batch.width, None
        if min(batch.lengths) < width:
            places = torch.arange(width + 1)
            mask = (places >= torch.tensor([width - length for length in batch.lengths])[:, None]).long()
        logits = self._forward([[row.last] for row in batch.rows], batch.lengths, mask, batch.cache)
        batch.lengths = [length + 1 for length in batch.lengths]
        going = [place for place, row in enumerate(batch.rows) if not self._choose(row, logits[place])]
        if len(going) < len(batch.rows):
            batch.keep(going)

    def _forward(
        self, tokens: list[list[int]], begins: list[int], mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """(rows, vocabulary) float32: logits after the last token of each row."""
        device = self._model.device
        arguments: dict[str, Any] = {"input_ids": torch.tensor(tokens, device=device)}
        if mask is not None:
            arguments["attention_mask"] = mask.to(device)
        if self._takes_positions:
            steps = torch.arange(len(tokens[0]))
            arguments["position_ids"] = (torch.tensor(begins)[:, None] + steps).to(device)
        output = self._model(**arguments, **self._last_only, past_key_values=cache, use_cache=True)
        logits: torch.Tensor = output.logits[:, -1].float().cpu()
        return logits

    def _choose(self, row: Generation, logits: torch.Tensor) -> bool:
        """Give the row its next token; whether it was the last."""
        allowed = row.constraint.allowed() if row.constraint is not None else None
        if allowed is not None and not bool(allowed.any()):
            failed = AtollError("the grammar allows no token here", hint="simplify it")
            self._out.append((row, Piece("", error=failed)))
            return True
        token = choose(logits, row.sampling, row.generator, row.seen, allowed)
        top = row.sampling.top_logprobs
        piece = row.take(token, likelihood(logits, token, top) if top is not None else None)
        self._out.append((row, piece))
        return bool(piece.finish)


def _is_plain(cache: Any) -> bool:
    """Whether the cache is keys and values of every token, which can be padded at the left."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _padded(states: torch.Tensor, width: int) -> torch.Tensor:
    """(rows, heads, tokens, length) with zeros at the left up to `width` tokens."""
    missing = width - states.shape[-2]
    return torch.nn.functional.pad(states, (0, 0, missing, 0)) if missing else states
