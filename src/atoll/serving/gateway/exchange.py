"""One inference request, from its first body byte to its usage record.

1 the body is gathered and read to an order; 2 the model is found, places and a reservation are taken (`admission`);
3 a replica is given, at once or after waiting (`dispatch`); 4 it is asked (`attempt`): until a token went to the
client, a failed replica is replaced and a slow one may be raced; after it, another goes on where it stopped
(`continuation`); 5 the answer passes, whole or as a stream; 6 the usage record is written; 7 only then the last byte
goes out.
Whatever happens instead (the client leaves, the engine dies, time runs out), the exchange settles exactly once: engines
are stopped, slots, places and reservations are free again, and what was used so far is on record.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from atoll.core.errors import AtollError, IntegrityError
from atoll.serving.gateway import explain
from atoll.serving.gateway.admission import Admission
from atoll.serving.gateway.attempt import Attempt, Race
from atoll.serving.gateway.body import Body
from atoll.serving.gateway.connection import Connection
from atoll.serving.gateway.continuation import Splice, Transcript
from atoll.serving.gateway.dialects.order import Endpoint, Order
from atoll.serving.gateway.dialects.refusal import read_engine_refusal
from atoll.serving.gateway.dispatch import Claim, Place, Ticket, nobody
from atoll.serving.gateway.errand import Errand
from atoll.serving.gateway.http import Request
from atoll.serving.gateway.records import Told, finish_record, record_of, recorder_head
from atoll.serving.gateway.relay import Relay, meter
from atoll.serving.gateway.snapshot import NO_PROJECT, Key, Model, Replica
from atoll.serving.gateway.upstream import Broken, ConnectFailed, Stalled
from atoll.serving.gateway.usage import NO_TOKENS, Tokens

if TYPE_CHECKING:
    from atoll.serving.gateway.app import Gateway

ATTEMPTS_MAX = 3
KEPT_BYTES_MAX = 1024 * 1024  # of a request's body, for as long as its stream may have to be continued
CLIENT_GONE = 499  # what proxies log for it; no client ever sees it


class Exchange:
    """Handler of the client's request and owner of the attempts to have it answered."""

    __slots__ = (
        "_admission",
        "_body",
        "_connection",
        "_endpoint",
        "_errand",
        "_failures",
        "_gateway",
        "_key",
        "_model",
        "_order",
        "_race",
        "_record",
        "_relay",
        "_request",
        "_story",
        "_ticket",
        "_tried",
        "_wait_until_s",
        "told",
    )

    def __init__(
        self,
        gateway: Gateway,
        connection: Connection,
        request: Request,
        endpoint: Endpoint,
        key: Key,
        project: str,
        priority: int,
    ) -> None:
        self._gateway = gateway
        self._connection = connection
        self._request = request
        self._endpoint = endpoint
        self._key = key
        self.told = Told(time.monotonic(), project, priority)
        self._relay = Relay(connection, endpoint, self.told)
        self._body = Body(gateway)
        self._order: Order | None = None
        self._model: Model | None = None
        self._admission: Admission | None = None
        self._ticket: Ticket | None = None
        self._errand: Errand | None = None
        self._race = Race()
        self._failures = 0
        self._tried: list[Replica] = []
        self._wait_until_s: float | None = None
        self._story: list[str] = []
        self._record: dict[str, Any] = {}

    # 1 the client's side

    def on_body(self, data: bytes) -> None:
        try:
            self._body.add(data)
        except AtollError as error:
            self._refuse(error)

    def on_end(self) -> None:
        self.told.read_s = time.monotonic()
        try:
            self._order = order = self._endpoint.read(self._body.take(), self._request.fields)
            if order.needs_centre:
                self._errand = Errand(self._prepare(order), self._on_broken)
            else:
                self._admit(order)
        except AtollError as error:
            self._fail(error)

    def on_disconnect(self) -> None:
        if self._admission is not None:
            self._settle("cancelled", CLIENT_GONE, self._race.tokens(self._relay.before))
        elif self._errand is not None and not self.told.is_settled:
            self._errand.cancel()
        self._forget()

    def on_pause(self) -> None:
        self._race.pause()

    def on_resume(self) -> None:
        self._race.resume()

    def _on_broken(self) -> None:
        """An errand failed by our own fault."""
        if self._admission is not None:
            self._settle("error", 500, self._race.tokens(self._relay.before))
        self._forget()
        self._connection.abort()

    async def _prepare(self, order: Order) -> None:
        try:
            await order.prepare(self._gateway.centre, self.told.project, self._key.id)
            self._admit(order)
        except AtollError as error:
            self._fail(error)

    # 2 places and a reservation

    def _admit(self, order: Order) -> None:
        """Raises AtollError."""
        gateway, told = self._gateway, self.told
        model = gateway.find_model(self._key, told.project, order.model, self._endpoint)
        self._admission = admission = Admission(gateway, self._key, told.project)
        self._model = model
        told.is_stream, told.user = order.is_stream, order.user
        if admission.reserve(order, model, gateway.tariffs_of(told.project, model), self._on_reserved):
            self._dispatch()

    def _on_reserved(self, error: AtollError | None) -> None:
        self.told.queue_s += time.monotonic() - self.told.read_s
        self._dispatch() if error is None else self._fail(error)

    # 3 a place

    def _dispatch(self) -> None:
        """A free place now, or one of a fallback, or wait."""
        assert self._model is not None and self._order is not None
        place = self._gateway.dispatch.find(self._model, self._order) or self._fall_back()
        if place is not None:
            self._ask(place)
        else:
            self._wait(None)

    def _fall_back(self, *, is_waited: bool = False) -> Place | None:
        """A free place of a fallback, when the model itself has nobody who could answer, or not in time."""
        model, gateway = self._model, self._gateway
        assert model is not None and self._order is not None
        if not model.fallback or (not is_waited and gateway.dispatch.is_alive(model, self._tried)):
            return None
        others = gateway.fallbacks_of(self.told.project, model)
        found = gateway.dispatch.find_among(others, self._order, self._tried)
        if found is None:
            return None
        self._story.append(explain.fell_back(model.name, found[0].name))
        return found[1]

    def _wait(self, otherwise: AtollError | None) -> None:
        """Wait for a place; where that is not possible, end with `otherwise`, or the reason."""
        model, order, admission = self._model, self._order, self._admission
        assert model is not None and order is not None and admission is not None
        now = time.monotonic()
        if self._wait_until_s is None:
            self._wait_until_s = now + (model.hold.wait_s if model.hold else 0.0)
        self._tried.clear()
        gateway, told = self._gateway, self.told
        weight = gateway.directory.snapshot.projects.get(told.project, NO_PROJECT).weight
        claim = Claim(told.project, weight, admission.tokens_most, told.priority)
        try:
            self._ticket = gateway.dispatch.wait(model, self, order, claim, self._wait_until_s)
        except AtollError as error:
            self._take_fallback_or(otherwise or error)

    def _take_fallback_or(self, error: AtollError) -> None:
        """Nobody can wait, or nobody could wait so long: a fallback, or the end."""
        place = None if self._race.leader is not None else self._fall_back(is_waited=True)
        if place is not None:
            self._ask(place)
        else:
            self._fail(error)

    def on_place(self, place: Place) -> None:
        """See dispatch.Waiter."""
        self._stop_waiting()
        self._ask(place)

    def on_wait_failed(self, error: AtollError) -> None:
        self._stop_waiting()
        self._take_fallback_or(error)

    def on_wait(self, told: str) -> None:
        assert self._order is not None
        if self._order.is_stream:
            self._relay.comment(told)

    def _stop_waiting(self) -> None:
        ticket, self._ticket = self._ticket, None
        assert ticket is not None
        waited_s = time.monotonic() - ticket.since_s
        self.told.queue_s += waited_s
        self._story.append(explain.waited(waited_s))

    # 4 asking

    def _ask(self, place: Place) -> None:
        order, admission, relay = self._order, self._admission, self._relay
        assert order is not None and admission is not None
        target, replica, why = place
        splice = None
        try:
            if relay.transcript is not None:
                body = order.continuation(target, relay.transcript.text, self._output_left(order, admission))
                translation, splice = relay.translation, Splice(relay.transcript.head)
            else:
                body = order.body(target, admission.output_max)
                translation = order.translation(target)
        except AtollError as error:
            if not self._race.running:
                self._fail(error)
            return
        self._tried.append(replica)
        if self._race.leader is None:
            relay.place = place
        self._story.append(explain.asked(replica.id, why))
        filter = meter(order)
        if filter is not None and relay.before is not NO_TOKENS:
            filter = filter.renewed(relay.before)
        attempt = Attempt(self._gateway, self, place, filter, translation, splice, passes=order.is_stream)
        if self.told.asked_s is None:
            self._begin_asking(attempt, admission)
        self._race.running.append(attempt)
        attempt.ask(
            b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (replica.head(order.path(target), order.method), self._request.request_id, len(body), body)
        )

    def _begin_asking(self, attempt: Attempt, admission: Admission) -> None:
        """An engine is about to be asked for the first time."""
        gateway, model = self._gateway, self._model
        assert model is not None
        self.told.asked_s = attempt.asked_s
        self._record = record_of(
            self._key, self._request, self._endpoint, model, attempt.place, self.told, admission.slices
        )
        head = recorder_head(self._record)
        self._relay.entry = None if head is None else gateway.recorder.open(head)
        if model.hedge_s is not None:
            self._race.hedge(model.hedge_s, self._ask_another)

    def _output_left(self, order: Order, admission: Admission) -> int:
        """Tokens that the rest of a continued answer may have."""
        assert self._model is not None
        return admission.output_left(order, self._model, self._relay.before.completion)

    def _ask_another(self) -> None:
        """The engine is slow with its first token: let another free one race it."""
        if self._race.leader is not None or len(self._race.running) != 1:
            return
        assert self._model is not None and self._order is not None and self._model.hedge_s is not None
        place = self._gateway.dispatch.find(self._model, self._order, self._tried)
        if place is not None:
            self._story.append(explain.hedged(self._model.hedge_s))
            self._ask(place)

    # 5 the engine's side

    def on_events(self, attempt: Attempt, events: bytes) -> None:
        """See attempt.Owner. The hot path of streams."""
        if self._race.leader is not attempt:
            self._lead(attempt)
        self._relay.pass_on(attempt, events)

    def _lead(self, attempt: Attempt) -> None:
        """This attempt is the answer."""
        self._race.lead(attempt)
        self._relay.place = attempt.place
        self._relay.translation = attempt.translation
        told = self.told
        if told.first_s is None and told.is_stream:
            told.first_s = time.monotonic()
            self._gateway.loads.first_token(attempt.place.target.id, told.first_s - told.begun_s)
            self._keep_for_continuation()

    def _keep_for_continuation(self) -> None:
        """Remember what is sent where that is of use; else let the order's memory go."""
        order = self._order
        assert order is not None
        if order.can_continue and self._body.size_bytes <= KEPT_BYTES_MAX:
            self._relay.transcript = Transcript()
        elif not order.needs_centre:
            self._forget()

    def on_answer(self, attempt: Attempt) -> None:
        """See attempt.Owner."""
        if attempt.status != 200:
            error = read_engine_refusal(self._endpoint.content, attempt.status, attempt.body)
            self._replace(attempt, error, is_final=error.http_status < 500)
            return
        if self._race.leader is not attempt:
            self._lead(attempt)
        if self.told.is_stream:
            self._finish_stream(attempt)
        else:
            self._finish_whole(attempt)

    def on_attempt_failed(self, attempt: Attempt, error: AtollError) -> None:
        """See attempt.Owner."""
        if self._admission is None:
            self._connection.abort()  # settled, and failed while answering
            return
        assert self._model is not None
        self._gateway.metrics.upstream_errors[self._model.name, error.code] += 1
        self._replace(attempt, error, is_final=isinstance(error, Stalled) and self._race.leader is None)

    def _replace(self, attempt: Attempt, error: AtollError, *, is_final: bool) -> None:
        """Another attempt in place of a failed one, if that can be."""
        race, relay = self._race, self._relay
        self._story.append(explain.failed(attempt.place.replica.id, error.code))
        self._failures += not isinstance(error, ConnectFailed)
        race.running.remove(attempt)
        if race.leader is attempt:
            relay.before = attempt.tokens
            attempt.end(attempt.tokens)
        else:
            attempt.end(NO_TOKENS)
        if race.running:
            return  # the one it races is still under way
        if is_final or self._failures >= ATTEMPTS_MAX:
            self._fail(error)
        elif race.leader is not None:
            self._go_on(error)
        else:
            self._retry(error)

    def _retry(self, error: AtollError) -> None:
        """No token was sent yet: ask another as if nothing had been."""
        place = self._another() or self._fall_back()
        if place is not None:
            self._ask(place)
        elif isinstance(error, ConnectFailed):
            self._wait(None)
        elif isinstance(error, Broken):
            self._wait(error)  # the last one died over it: its successor may not be known yet
        else:
            self._fail(error)

    def _another(self) -> Place | None:
        """A replica that was not tried, with a free slot or without: the request has waited its turn already."""
        assert self._model is not None and self._order is not None
        if len(self._tried) >= ATTEMPTS_MAX:
            return None
        dispatch = self._gateway.dispatch
        return dispatch.find(self._model, self._order, self._tried) or dispatch.crowd(self._model, self._tried)

    def _go_on(self, error: AtollError) -> None:
        """Tokens were sent: let another replica go on after them."""
        relay, order, admission = self._relay, self._order, self._admission
        assert admission is not None
        if relay.transcript is None or order is None:
            self._fail(error)
            return
        if relay.transcript.is_finished or self._output_left(order, admission) <= 0:
            self._end("ok", relay.before, relay.last_for_the_dead(order))
            return
        self._story.append(explain.went_on(relay.before.completion))
        place = self._another()
        if place is not None:
            self._ask(place)
        else:
            self._wait(error)

    # endings

    def _refuse(self, error: AtollError) -> None:
        """Answer without having taken anything."""
        self._forget()
        self._gateway.refuse_request(self._connection, self._endpoint, error)

    def _fail(self, error: AtollError) -> None:
        """Tell the client; in a stream that has begun, by breaking it off."""
        if self._admission is None:
            self._refuse(error)
        elif self._relay.is_started:
            self._settle("error", 200, self._race.tokens(self._relay.before))
            self._relay.break_off(error)
        else:
            assert self._model is not None
            if isinstance(error, ConnectFailed):
                error = nobody(self._model, time.monotonic())
            self._settle("error", error.http_status, NO_TOKENS)
            self._gateway.answer_error(self._connection, self._endpoint, error)

    def _finish_stream(self, attempt: Attempt) -> None:
        filter = attempt.filter
        assert filter is not None
        rest = self._relay.last_of_stream(filter)
        self._end("ok" if filter.is_ended else "error", filter.tokens(), rest)

    def _finish_whole(self, attempt: Attempt) -> None:
        try:
            body, tokens = self._relay.whole(attempt)
        except IntegrityError as error:
            self._settle("error", error.http_status, attempt.tokens)
            self._gateway.answer_error(self._connection, self._endpoint, error)
        else:
            self._end("ok", tokens, body)

    def _end(self, outcome: str, tokens: Tokens | None, rest: bytes) -> None:
        """Settle, then send the last bytes."""
        order = self._order
        self._settle(outcome, 200, tokens)
        if order is not None and order.needs_centre and outcome == "ok":
            self._errand = Errand(self._store(order, rest), self._on_broken)
        else:
            self._relay.send_last(rest)

    async def _store(self, order: Order, rest: bytes) -> None:
        """Have the centre keep the answer. Goes on when the client leaves now: it was answered."""
        try:
            rest = await order.epilogue(self._gateway.centre, self.told.project, self._key.id, rest)
        except AtollError as error:
            if self._connection.handler is not self:
                return
            if self._relay.is_started:
                self._relay.break_off(error)
            else:
                self._gateway.answer_error(self._connection, self._endpoint, error)
            return
        if self._connection.handler is self:
            self._relay.send_last(rest)

    def _settle(self, outcome: str, http_status: int, tokens: Tokens | None) -> None:
        """Free everything and write the record; comes before the last byte of any answer."""
        gateway, told, admission, model = self._gateway, self.told, self._admission, self._model
        assert admission is not None and model is not None
        self._admission = None
        told.is_settled = True
        used = tokens or NO_TOKENS
        now = time.monotonic()
        told.ended_s = now
        if self._race.running:
            told.engine_s = now - self._race.running[0].asked_s
        gateway.metrics.observe(self._endpoint.name, model.name, http_status, now - told.begun_s, told.ttft_s)
        cost = gateway.cost_of(self._relay.place, used)
        slices = admission.give_back(used, cost)
        try:
            if told.asked_s is not None:
                gateway.metrics.use(model.name, tokens)
                self._put_on_record(outcome, http_status, used, cost, slices)
        finally:
            self._free(used)

    def _put_on_record(
        self, outcome: str, http_status: int, used: Tokens, cost_micros: int, slices: dict[str, int]
    ) -> None:
        relay, record = self._relay, self._record
        assert relay.place is not None
        finish_record(record, relay.place, self.told, used, outcome, http_status)
        record["cost_micros"], record["slices"], record["note"] = cost_micros, slices, explain.note(self._story)
        entry, relay.entry = relay.entry, None
        self._gateway.journal.append(record, entry)

    def _free(self, used: Tokens) -> None:
        """Stop engines, leave the queue, give slots back."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._gateway.dispatch.leave_queue(ticket)
        self._forget()
        self._race.end(used)

    def _forget(self) -> None:
        """Let the memory of the request go."""
        self._body.forget()
        self._order = None
