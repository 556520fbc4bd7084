"""What one request holds of its tenant's allowances: a place, its rates, a reservation. Given back exactly once.

The reservation is an upper bound: of the prompt by its bytes, of the answer by what the client asked for, by the
context, or by what the budgets have left when the client set no bound. Knows nothing of replicas and connections.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from atoll.core.errors import AtollError, RateLimited
from atoll.governance.prices import Tariff
from atoll.serving.gateway.dialects.order import Order
from atoll.serving.gateway.slices import NOTHING, Reservation, Ticket
from atoll.serving.gateway.snapshot import NO_PROJECT, Key, Model
from atoll.serving.gateway.usage import Tokens

if TYPE_CHECKING:
    from atoll.serving.gateway.app import Gateway

OUTPUT_TOKENS_UNKNOWN = 4096  # of an answer without any bound, by a model whose context nobody told
_GENERATES = frozenset(("chat", "completion"))
Done = Callable[[AtollError | None], None]


class Admission:
    """Takes a place when made (raises RateLimited); `reserve` next; `give_back` at the end, whatever happened."""

    __slots__ = ("_gateway", "_reservation", "_ticket", "key", "output_max", "project", "tokens_most")

    def __init__(self, gateway: Gateway, key: Key, project: str) -> None:
        snapshot = gateway.directory.snapshot
        load, bound = gateway.load_of_key.get(key.id, 0), snapshot.bounds.requests_per_key_max
        if bound is not None and load >= bound:
            message = f"This key has {load} requests in flight, as many as it may."
            raise RateLimited(message, code="rate_limit_exceeded")
        limits = snapshot.projects.get(project, NO_PROJECT).limits
        gateway.limiter.begin(key.id, key.limits, project, limits, snapshot.hosts)
        gateway.load_of_key[key.id] = load + 1
        gateway.in_flight += 1
        self._gateway = gateway
        self._reservation: Reservation = NOTHING
        self._ticket: Ticket | None = None
        self.key = key
        self.project = project
        self.output_max: int | None = None  # set where a budget bounds an answer that the client did not
        self.tokens_most = 0

    @property
    def slices(self) -> dict[str, str]:
        """Unit by slice id, for the flight recorder."""
        return self._reservation.slices

    def reserve(self, order: Order, model: Model, tariffs: Collection[Tariff], done: Done) -> bool:
        """Set aside what the request may use at most, at any of `tariffs`; True when that is done at once.

        Else `done` is called once, with the reason when it failed, unless `give_back` comes first. Raises AtollError.
        """
        prompt, output = bounds(order, model)
        self.tokens_most = prompt + output * order.choices
        path = self.key.budgets.get(self.project, ())
        if not path:
            return True
        need = _Need(prompt, output, order.choices, tuple(tariffs))
        if self._take(path, need):
            return True
        if order.output_bound is None and output and (clamped := self._clamped(path, need)) is not None:
            need, self.output_max = clamped, clamped.output
            if self._take(path, need):
                return True
        self._wait(path, need, done, may_clamp=order.output_bound is None and self.output_max is None)
        return False

    def _take(self, path: tuple[str, ...], need: _Need) -> bool:
        reservation = self._gateway.purse.reserve(path, need.tokens, need.money, need.currency)
        self._reservation = reservation or NOTHING
        return reservation is not None

    def _clamped(self, path: tuple[str, ...], need: _Need) -> _Need | None:
        """The need for as long an answer as the budgets have left for; None when that is no other, or nothing."""
        dearest = max(need.tariffs, key=lambda tariff: tariff.output, default=None)
        price = None if dearest is None else dearest.price
        left = self._gateway.purse.clamp(path, need.prompt, need.output * need.choices, price)
        if left is None or left < need.choices:
            return None
        return _Need(need.prompt, left // need.choices, need.choices, need.tariffs)

    def _wait(self, path: tuple[str, ...], need: _Need, done: Done, *, may_clamp: bool) -> None:
        """Ask the centre; told of too little for an unbounded answer, ask once more for what there is."""

        def on_done(result: Reservation | AtollError) -> None:
            self._ticket = None
            if isinstance(result, Reservation):
                self._reservation = result
                done(None)
                return
            less = self._clamped(path, need) if may_clamp and isinstance(result, RateLimited) else None
            if less is None:
                done(result)
                return
            self.output_max = less.output
            self._wait(path, less, done, may_clamp=False)

        purse = self._gateway.purse
        self._ticket = purse.wait(path, need.tokens, need.money, need.currency, on_done)

    def output_left(self, order: Order, model: Model, said: int) -> int:
        """Tokens that the rest of an answer may have, of which `said` were sent."""
        _, output = bounds(order, model)
        return (output if self.output_max is None else min(output, self.output_max)) - said

    def give_back(self, tokens: Tokens, money_micros: int) -> dict[str, int]:
        """End it: everything is free again, what was used is charged. The amounts by slice id."""
        gateway, key = self._gateway, self.key
        gateway.in_flight -= 1
        load = gateway.load_of_key[key.id] - 1
        if load:
            gateway.load_of_key[key.id] = load
        else:
            del gateway.load_of_key[key.id]
        used = tokens.prompt + tokens.completion
        gateway.limiter.end(key.id, self.project, used)
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        if self._reservation is NOTHING:
            return {}
        return gateway.purse.settle(self._reservation, used, money_micros)


class _Need:
    """What a request may use at most."""

    __slots__ = ("choices", "currency", "money", "output", "prompt", "tariffs", "tokens")

    def __init__(self, prompt: int, output: int, choices: int, tariffs: tuple[Tariff, ...]) -> None:
        self.prompt = prompt
        self.output = output
        self.choices = choices
        self.tariffs = tariffs
        self.tokens = prompt + output * choices
        self.money = max([tariff.most_micros(prompt, output * choices) for tariff in tariffs], default=0)
        self.currency = tariffs[0].currency if tariffs else ""


def bounds(order: Order, model: Model) -> tuple[int, int]:
    """Tokens the prompts may have at most, and tokens each choice may have at most."""
    if model.kind not in _GENERATES:
        return order.prompt_bound, 0
    context, prompt, output = model.context, order.prompt_bound, order.output_bound
    if context <= 0:
        return prompt, OUTPUT_TOKENS_UNKNOWN if output is None else output
    prompts = max(1, order.choices // max(1, order.choices_per_prompt))
    return min(prompt, prompts * context), context if output is None else min(output, context)
