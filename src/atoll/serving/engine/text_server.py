"""The transformers engine at work: one model, loaded in this process, behind an OpenAI-compatible door.

Tokenising and compiling grammars have a thread, computing has one (see `batcher`), the door has one; a request that is
computed lives in all three and ends when its client goes. Started by `transformers_server`.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import torch

from atoll.compute.agent import probes
from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, Invalid, Unavailable
from atoll.models.formats import read_safetensors
from atoll.serving.engine import placed, text_model
from atoll.serving.engine.answers import Answering
from atoll.serving.engine.base import ServeInput
from atoll.serving.engine.batcher import Batcher, Delivery, deliver_here
from atoll.serving.engine.constraints import Constraint, Constraints
from atoll.serving.engine.generation import Generation, Piece, TextStream
from atoll.serving.engine.lifecycle import (
    grace_s,
    keep_watch,
    leave,
    stop_event,
    wait_until_ready,
    warm_up,
)
from atoll.serving.engine.server import Answer, Door, Request, ServerThread, Stream, new_key, no_such_path
from atoll.serving.engine.text_model import TextModel
from atoll.serving.engine.text_requests import (
    TextRequest,
    check_length,
    constraint_of,
    read_chat,
    read_completion,
    token_rows,
)

READY_TIMEOUT_S = 60.0
EMBED_TOKENS_MAX = 8192
"""Tokens, padding included, embedded between two steps."""

Value = TypeVar("Value")


class TextServer:
    """Answers requests with one model."""

    def __init__(self, spec: ServeInput, model: TextModel, pooling: str) -> None:
        self._spec, self._model, self._pooling = spec, model, pooling
        self.batcher = Batcher(model.model, spec.slots, self._deliver)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading = ThreadPoolExecutor(1, "reading")
        self._constraints: Constraints | None = None

    async def handle(self, request: Request) -> Answer | Stream:
        """The answer to a request."""
        known = {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completion,
            ("POST", "/v1/embeddings"): self._embeddings,
        }
        handler = known.get((request.method, request.path))
        if handler is None:
            raise no_such_path(request)
        return await handler(request)

    async def _models(self, request: Request) -> Answer:
        about = {"id": self._spec.alias, "object": "model", "created": 0, "owned_by": "atoll"}
        return Answer(orjson.dumps({"object": "list", "data": [about]}))

    async def _chat(self, request: Request) -> Answer | Stream:
        self._check_task("generate")
        body = request.json()

        def read() -> tuple[TextRequest, Constraint | None]:
            order, tools = read_chat(body, self._model)
            return order, self._constraint(body, tools)

        order, constraint = await self._read(read)
        return await self._generate(order, constraint, is_chat=True)

    async def _completion(self, request: Request) -> Answer | Stream:
        self._check_task("generate")
        body = request.json()
        order, constraint = await self._read(lambda: (read_completion(body, self._model), self._constraint(body, [])))
        return await self._generate(order, constraint, is_chat=False)

    async def _generate(self, order: TextRequest, constraint: Constraint | None, *, is_chat: bool) -> Answer | Stream:
        answering = Answering(order, self._model, self._spec.alias, is_chat=is_chat)
        pieces = self._pieces(order, constraint, len(answering.choices))
        if order.is_stream:
            return Stream(_events(answering, pieces))
        async with aclosing(pieces):
            async for index, piece in pieces:
                answering.take(index, piece)
                if answering.is_over:
                    break
        return Answer(answering.whole())

    async def _pieces(
        self, order: TextRequest, constraint: Constraint | None, count: int
    ) -> AsyncGenerator[tuple[int, Piece], None]:
        """What comes of the answers, in the order it comes; those still computed are cancelled at its end."""
        self._loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Piece]]()

        def receiver(index: int) -> Callable[[Piece], None]:
            return lambda piece: queue.put_nowait((index, piece))

        generations = [self._generation(order, constraint, index, receiver(index)) for index in range(count)]
        try:
            for generation in generations:
                self.batcher.submit(generation)
            while True:
                index, piece = await queue.get()
                if piece.error is not None:
                    raise piece.error
                yield index, piece
        finally:
            for generation in generations:
                generation.is_cancelled = True

    def _deliver(self, delivery: Delivery) -> None:
        """Carry what came of a step to the loop's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver_here, delivery)

    def _generation(
        self, order: TextRequest, constraint: Constraint | None, index: int, receive: Callable[[Piece], None]
    ) -> Generation:
        return Generation(
            prompt=order.prompts[index // order.answers],
            tokens_max=order.tokens_max,
            text=TextStream(self._model.backend, order.stop),
            receive=receive,
            sampling=order.sampling.for_answer(index),
            end_tokens=frozenset() if order.ignore_end else self._model.end_tokens,
            constraint=constraint.copy() if constraint is not None else None,
        )

    async def _embeddings(self, request: Request) -> Answer:
        self._check_task("embed")
        body = request.json()
        encoding, size = body.get("encoding_format") or "float", body.get("dimensions")
        if encoding not in ("float", "base64"):
            raise Invalid(f"encoding_format is {encoding!r}", field="encoding_format", hint="float or base64")
        rows = await self._read(lambda: token_rows(body.get("input"), self._model, "input"))
        check_length(max(len(row) for row in rows), self._model, "input")
        vectors = np.concatenate([await self._computed(batch) for batch in _batches(rows)])
        vectors = _shortened(vectors, size)
        told = [_vector(place, vector, encoding) for place, vector in enumerate(vectors)]
        tokens = sum(len(row) for row in rows)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Answer(
            orjson.dumps({"object": "list", "data": told, "model": self._spec.alias, "usage": usage}, option=_NUMPY)
        )

    async def _computed(self, rows: list[tuple[int, ...]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One vector for each row, computed between two steps of the batcher."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[np.ndarray[Any, np.dtype[np.float32]]] = loop.create_future()

        def compute() -> None:
            try:
                vectors = text_model.embed(self._model, rows, self._pooling).numpy()
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
                failed = AtollError(f"the model failed: {type(error).__name__}: {error}")
                loop.call_soon_threadsafe(_settle, done, None, failed)
            else:
                loop.call_soon_threadsafe(_settle, done, vectors, None)

        self.batcher.call(compute)
        return await done

    async def _read(self, work: Callable[[], Value]) -> Value:
        """Tokenise and compile outside the loop: a long prompt must not keep others from streaming."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    def _constraint(self, body: Mapping[str, Any], tools: list[Mapping[str, Any]]) -> Constraint | None:
        wanted = ("grammar", "json_schema", "response_format")
        if not tools and all(body.get(name) is None for name in wanted):
            return None
        if self._constraints is None:
            model = self._model
            self._constraints = Constraints(model.tokenizer, model.vocabulary, sorted(model.end_tokens))
        return constraint_of(body, tools, self._constraints)

    def _check_task(self, needed: str) -> None:
        if self._spec.task != needed:
            raise Invalid(f"{self._spec.alias} is served to {self._spec.task}, not to {needed}", field="model")


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop; leaves the process, never returns normally."""
    spec = ServeInput.from_dict(data)
    text_model.check_options(spec.engine_options)
    if spec.adapters:
        raise Invalid("transformers serves no adapters", field="adapters", hint="take vllm or sglang")
    started = time.monotonic()
    folder = prepare(spec, BlobStore(task.blobs_url()), task.cache_dir(), task.task_dir())
    torch.set_num_threads(spec.threads or max(1, int(probes.cpu_count())))
    task.report_progress("load", 0, None, "byte", "loading the weights")
    model = text_model.load(spec, folder)
    served = TextServer(spec, model, text_model.pooling(spec, folder))
    key = new_key()
    backend = ServerThread("transformers", Door(served.handle, key, check=served.batcher.check), key)
    stop = stop_event()
    served.batcher.start()
    backend.start()
    try:
        wait_until_ready(backend, READY_TIMEOUT_S, stop)
        warm_up(backend, spec)
    except Unavailable as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        leave(1)
    task.report_progress("load", 1, 1, "", "serving", load_s=round(time.monotonic() - started, 3))
    task.write_endpoint(backend.url, key, capabilities(spec, model))
    leave(keep_watch(backend, stop, grace_s(), spec.health))


def prepare(spec: ServeInput, store: BlobStore, cache: Path, into: Path) -> Path:
    """The verified folder of the model. IntegrityError for damaged bytes, Invalid for what cannot be served."""
    folder = placed.folder(spec.files, into / "model", store, cache)
    facts = read_safetensors(folder)
    if facts.context_length and spec.context > facts.context_length:
        raise Invalid(
            f"context is {spec.context}, {spec.alias} was made for {facts.context_length} tokens",
            field="context",
            hint=f"at most {facts.context_length}",
        )
    return folder


def capabilities(spec: ServeInput, model: TextModel) -> tuple[str, ...]:
    """What clients may ask of this replica."""
    if not spec.is_generating:
        return ("embedding",)
    able = ("completion", "json_schema", "grammar", "logprobs", "continuous_usage")
    return ("chat", *able, "tools", "prefill") if model.has_template else able


async def _events(answering: Answering, pieces: AsyncGenerator[tuple[int, Piece], None]) -> AsyncGenerator[bytes, None]:
    """The stream of a request's answers."""
    async with aclosing(pieces):
        if first := answering.first():
            yield first
        async for index, piece in pieces:
            if event := answering.event(index, answering.take(index, piece)):
                yield event
            if answering.is_over:
                break
        yield answering.last()


def _settle(done: asyncio.Future[Any], value: object, error: AtollError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(value)
    else:
        done.set_exception(error)


def _batches(rows: tuple[tuple[int, ...], ...]) -> list[list[tuple[int, ...]]]:
    """Rows in order, as many at a time as fit into EMBED_TOKENS_MAX with their padding."""
    batches: list[list[tuple[int, ...]]] = [[]]
    for row in rows:
        longest = max(len(other) for other in (*batches[-1], row))
        if batches[-1] and longest * (len(batches[-1]) + 1) > EMBED_TOKENS_MAX:
            batches.append([])
        batches[-1].append(row)
    return batches


def _shortened(vectors: np.ndarray[Any, np.dtype[np.float32]], size: object) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first `size` numbers of each vector, of unit length again."""
    if size is None:
        return vectors
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= vectors.shape[1]:
        raise Invalid(f"dimensions is {size!r}, not 1 to {vectors.shape[1]}", field="dimensions")
    cut = vectors[:, :size]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)


def _vector(place: int, vector: np.ndarray[Any, np.dtype[np.float32]], encoding: str) -> dict[str, Any]:
    told = base64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector
    return {"object": "embedding", "index": place, "embedding": np.ascontiguousarray(told) if told is vector else told}
