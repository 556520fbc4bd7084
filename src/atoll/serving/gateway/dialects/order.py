"""The seam between what a client said and what an engine is asked: Endpoint, Order, Translation.

A gateway reads an Order once, then may ask several targets with it (retries, hedges, fallbacks): `body`, `path` and
`translation` are functions of the target, and nothing of one attempt stays in the order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from atoll.core.errors import AtollError, Invalid
from atoll.serving.gateway.dialects import refusal
from atoll.serving.gateway.dialects.centre import Centre
from atoll.serving.gateway.dialects.expect import Expectation

Headers = Mapping[bytes, bytes]
AFFINITY_BYTES_MAX = 16_384
SESSION_CHARACTERS_MAX = 256


class Target(Protocol):
    """Who shall answer, as the snapshot tells: a deployment or a provider's model."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def model(self) -> str | None:
        """Name to send; None leaves the client's."""

    @property
    def adapter(self) -> int | None:
        """Index of the llama.cpp adapter to switch on."""

    @property
    def context(self) -> int:
        """Tokens; 0 is unknown."""

    @property
    def capabilities(self) -> Collection[str]: ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A target that is one llama.cpp server with one model."""

    name: str = "engine"
    engine: str = "llamacpp"
    model: str | None = None
    adapter: int | None = None
    context: int = 0
    capabilities: Collection[str] = ()


PLAIN = Plain()


class Translation(Protocol):
    """An engine's answer on its way to a client of another tongue. One per attempt; each byte passes once."""

    def whole(self, body: bytes) -> bytes:
        """The client's whole answer. Raises IntegrityError for what is no answer."""

    def events(self, data: bytes) -> bytes:
        """The client's events for these whole events of the engine; may be empty."""

    def finish(self, rest: bytes) -> bytes:
        """The last events; `rest` is what the metering held back."""

    def break_off(self, error: AtollError) -> bytes:
        """The last event of a stream that cannot go on."""


class Order(ABC):
    """A checked request to one model. `choices` is over all prompts, `choices_per_prompt` is OpenAI's n.

    `prompt_bound` is never below the tokens of all prompts; `output_bound` is the most tokens asked for per choice,
    None when the client set none. `data` is the request in the engine family's own JSON.
    """

    __slots__ = (
        "choices",
        "choices_per_prompt",
        "data",
        "endpoint",
        "fields",
        "headers",
        "is_stream",
        "model",
        "output_bound",
        "prompt_bound",
    )

    method = b"POST"
    needs_centre = False
    """Whether `prepare` and `epilogue` must be awaited."""

    def __init__(
        self, endpoint: Endpoint, data: bytes, fields: dict[str, Any], headers: Headers, *, prompt_bound: int
    ) -> None:
        self.endpoint = endpoint
        self.data = data
        self.fields = fields
        self.headers = headers
        self.model: str = fields["model"]
        self.is_stream = False
        self.choices = 1
        self.choices_per_prompt = 1
        self.prompt_bound = prompt_bound
        self.output_bound: int | None = None

    # what the gateway wants to know

    @property
    def affinity_key(self) -> bytes:
        """Requests whose keys begin alike share a prompt's beginning."""
        start = max(0, self.data.find(b'"%b"' % self.endpoint.content.encode()))
        return self.data[start : start + AFFINITY_BYTES_MAX]

    @property
    def session(self) -> str | None:
        """What the client calls this conversation."""
        told = self.headers.get(b"x-atoll-session")
        if told:
            return told[:SESSION_CHARACTERS_MAX].decode(errors="replace")
        key = self.fields.get("prompt_cache_key")
        return key[:SESSION_CHARACTERS_MAX] if isinstance(key, str) and key else None

    @property
    def user(self) -> str:
        """The client's own name for its user, for the usage record."""
        value = self.fields.get("user") or self.fields.get("safety_identifier")
        return value[:SESSION_CHARACTERS_MAX] if isinstance(value, str) else ""

    @property
    def wants_usage(self) -> bool:
        """Whether usage in the stream is for the client (or its translation) to see."""
        return bool((self.fields.get("stream_options") or {}).get("include_usage"))

    def wants(self, parameter: str) -> bool:
        return bool(self.fields.get(parameter))

    @property
    def can_continue(self) -> bool:
        """Whether another replica could go on with a broken answer: plain text, one choice."""
        return False

    # what an engine is asked

    def path(self, target: Target) -> str:
        """Where on the engine."""
        return self.endpoint.path

    @abstractmethod
    def body(self, target: Target, output_max: int | None = None) -> bytes:
        """The engine's request; `output_max` bounds each choice where the client set no bound.

        Raises Invalid, naming the parameter, when the target cannot do what is asked.
        """

    def translation(self, target: Target) -> Translation | None:
        """How this target's answer becomes the client's; None: as it is."""
        return None

    def continuation(self, target: Target, text: str, output_max: int | None = None) -> bytes:
        """The request that goes on after `text`, for at most `output_max` more tokens. Raises Invalid."""
        raise Invalid(f"An answer of {self.endpoint.path} cannot be continued by {target.name!r}.")

    # for dialects with a state at the centre

    async def prepare(self, centre: Centre, project: str, key_id: str) -> None:  # noqa: B027 - most need nothing
        """Fetch what the request refers to; bounds and keys may change by it. Raises AtollError."""

    async def epilogue(self, centre: Centre, project: str, key_id: str, rest: bytes) -> bytes:
        """Keep the answer; returns the last bytes for the client, which were `rest`."""
        return rest


Reader = Callable[["Endpoint", bytes, Headers], Order]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route: its parameters, the one that must be there, and the kinds of model that answer it."""

    name: str
    path: str
    parameters: Mapping[str, Expectation]
    content: str
    kinds: frozenset[str]
    reader: Reader
    method: str = "POST"
    render_error: Callable[[AtollError], tuple[int, bytes, bytes]] = field(default=refusal.render)
    """Status, body and header lines of an error in this endpoint's own form."""
    break_off: Callable[[AtollError], bytes] = field(default=refusal.break_off)
    """The last event of a stream without a translation that cannot go on."""

    def read(self, body: bytes, headers: Headers) -> Order:
        """The request in a body; raises Invalid with `field` naming what is wrong."""
        return self.reader(self, body, headers)
