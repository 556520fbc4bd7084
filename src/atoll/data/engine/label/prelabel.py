"""Pre-labels by a model, asked through the door. `python -m atoll.data.engine.label.prelabel` in a task directory.

Every item is asked about once: what a page of items came to is written before the next page is read, and items that
have this model's word already are passed over, so an errand that was killed goes on where it was. An answer that does
not fit the schema is counted and named, never written. A budget that ends, or a model that goes away, ends the errand
with what was said until then written. What the model says is a suggestion; people decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Lock, local
from typing import Any

import orjson
from pydantic import TypeAdapter

from atoll.core import task
from atoll.core.errors import AtollError, Invalid
from atoll.data.engine.label.door import Door, own_key
from atoll.data.labelling.schema import AnyField
from atoll.data.labelling.values import Values, from_model

PAGE = 100
TEXT_CHARACTERS_MAX = 24_000
ERRORS_SHOWN = 20
TOKENS_MAX = 1024

_FIELDS: TypeAdapter[list[Any]] = TypeAdapter(list[AnyField])


class Prelabeller:
    """One attempt at an errand."""

    def __init__(self, wanted: Mapping[str, Any], key: str) -> None:
        self._wanted = wanted
        self._key = key
        self._fields = _FIELDS.validate_python(wanted["fields"])
        self._by = f"{wanted['model']}@{wanted['version']}"
        self._doors = local()
        self._lock = Lock()
        self._ended: AtollError | None = None
        self._opened: list[Door] = []
        self.counts = {"labelled": 0, "failed": 0, "passed_over": 0}
        self.errors: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        """Ask about every item that needs it; counts and the first errors. Invalid when no answer was usable."""
        self._door().check_model(self._wanted["model"])
        with ThreadPoolExecutor(int(self._wanted["parallel"])) as pool:
            for page in self._door().rows(PAGE):
                todo = [row for row in page if self._is_asked(row)]
                self.counts["passed_over"] += len(page) - len(todo)
                self._write([said for said in pool.map(self._ask, todo) if said is not None])
                self._tell()
                if self._ended is not None:
                    raise self._ended
                self._check_useful(least=PAGE)
        self._check_useful(least=1)
        return {"counts": self.counts, "errors": self.errors}

    def _tell(self, waiting_for: str = "") -> None:
        message = f"waiting: {waiting_for}" if waiting_for else ""
        with self._lock:
            done = sum(self.counts.values())
            task.report_progress("prelabel", done, None, "item", message, counts=self.counts)

    def _check_useful(self, least: int) -> None:
        """Invalid when nothing came of at least so many answers."""
        if self.counts["failed"] >= least and not self.counts["labelled"] + self.counts["passed_over"]:
            hint = "try another model, or say more in the task's instructions"
            words = f"no answer of {self._wanted['model']!r} fits: {self.errors[0]['message']}"
            raise Invalid(words, field="model", hint=hint, errors=self.errors)

    def close(self) -> None:
        for door in self._opened:
            door.close()

    def _is_asked(self, row: Mapping[str, Any]) -> bool:
        is_decided = row["state"] in ("decided", "final")
        return row["prelabel_by"] != self._by and (self._wanted["again"] or not is_decided)

    def _ask(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        if self._ended is not None:
            return None
        order = {
            "model": self._wanted["model"],
            "messages": messages(self._fields, self._wanted["instructions"], row["item"]),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "labels", "strict": True, "schema": self._wanted["schema"]},
            },
            "temperature": 0,
            "max_tokens": TOKENS_MAX,
        }
        try:
            answer = self._door().chat(order)
            return {"item": row["id"], "values": read_answer(self._fields, answer, row["item"].get("text", ""))}
        except Invalid as error:
            self.counts["failed"] += 1
            if len(self.errors) < ERRORS_SHOWN:
                self.errors.append({"item": row["id"], "message": str(error)[:500]})
        except AtollError as error:
            self._ended = self._ended or error
        return None

    def _write(self, said: Sequence[Mapping[str, Any]]) -> None:
        if said:
            about = {"model": self._wanted["model"], "version": self._wanted["version"]}
            self._door().send("prelabels", {**about, "labels": list(said)})
            self.counts["labelled"] += len(said)

    def _door(self) -> Door:
        """This thread's door."""
        if not hasattr(self._doors, "own"):
            self._doors.own = Door(self._wanted, self._key, waits=self._tell)
            self._opened.append(self._doors.own)
        own: Door = self._doors.own
        return own


def messages(fields: Sequence[Any], instructions: str, item: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a model is told about an item; long texts are cut."""
    asked = "\n".join(_asked(fields))
    system = f"{instructions.strip() or 'Label what you are shown.'}\n\nAnswer in JSON with these fields:\n{asked}"
    shown = [f"{name}:\n{item[name][:TEXT_CHARACTERS_MAX]}" for name in ("prompt", "text", "a", "b") if item.get(name)]
    if item.get("meta") and not shown:
        shown = [orjson.dumps(item["meta"]).decode()[:TEXT_CHARACTERS_MAX]]
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(shown)}]


def _asked(fields: Sequence[Any]) -> Iterator[str]:
    for field in fields:
        what = {
            "class": "one of",
            "classes": "a list of any of",
            "spans": "a list of quotes of the text, each with one label of",
            "pair": 'which text is better: "a", "b" or "tie"',
            "rating": "a whole number",
            "text": "a text",
        }[field.type]
        options = f" {', '.join(field.options)}" if hasattr(field, "options") else ""
        scale = f" from {field.min} to {field.max}" if field.type == "rating" else ""
        yield f"- {field.name}: {what}{options}{scale}. {field.description}".rstrip()


def read_answer(fields: Sequence[Any], answer: Mapping[str, Any], text: str) -> Values:
    """The values in an answer of /v1/chat/completions; Invalid says why there are none."""
    try:
        content = answer["choices"][0]["message"]["content"]
        said = orjson.loads(content)
    except (KeyError, IndexError, TypeError, orjson.JSONDecodeError) as error:
        raise Invalid(f"the model's answer is not JSON: {answer.get('choices')!r:.200}", field="answer") from error
    if not isinstance(said, dict):
        raise Invalid(f"the model's answer is not an object: {said!r:.200}", field="answer")
    return from_model(fields, {name: value for name, value in said.items() if value is not None}, text)


def main(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Run the errand of a task's input."""
    with closing(Prelabeller(wanted, own_key())) as prelabeller:
        return prelabeller.run()


if __name__ == "__main__":
    task.run(main)
