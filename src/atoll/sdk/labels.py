"""Labelling through the API: items in, items in hand, answers, decisions, labels out.

    labels = Labels(client.connection, client.project)
    labels.append("tone", [{"key": "1", "text": "Thank you!"}])
    item = labels.next("tone")["items"][0]
    labels.answer("tone", item["item"], {"tone": "kind"})

Answers are as the API gives them, documented in the reference of its routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from atoll.sdk.connection import Connection

ITEMS_AT_ONCE = 500


class Labels:
    """What a client can do about labelling in one project."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def append(self, task: str, items: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Add items; those whose key is known already stay as they are. How many were added, how many known."""
        counts = {"added": 0, "known": 0}
        for pack in _packs(items):
            found = self._post(task, "items", items=pack)
            counts = {name: counts[name] + found[name] for name in counts}
        return counts

    def remove(self, task: str, items: Sequence[str]) -> int:
        """Take items out for good, by their keys; how many there were. For owners."""
        return int(self._post(task, "remove", items=list(items))["removed"])

    def next(self, task: str, count: int = 1) -> dict[str, Any]:
        """Up to `count` items in hand, with the task's `fields` and `instructions`."""
        return self._post(task, "next", count=count)

    def answer(
        self, task: str, item: str, values: Mapping[str, Any], *, comment: str = "", seconds: float = 0.0
    ) -> dict[str, Any]:
        """Answer an item, or revise one's answer; where the item stands then."""
        return self._post(task, "answers", item=item, values=dict(values), comment=comment, seconds=seconds)

    def skip(self, task: str, item: str, *, comment: str = "") -> dict[str, Any]:
        """Leave an item to others."""
        return self._post(task, "skip", item=item, comment=comment)

    def adjudicate(self, task: str, item: str, values: Mapping[str, Any], *, comment: str = "") -> dict[str, Any]:
        """Decide an item for good."""
        return self._post(task, "adjudicate", item=item, values=dict(values), comment=comment)

    def prelabels(self, task: str, model: str, version: str, labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Write what a model says of items: {"item", "values"} each."""
        return self._post(task, "prelabels", model=model, version=version, labels=list(labels))

    def prelabel(self, task: str, model: str, *, parallel: int = 4, again: bool = False) -> dict[str, Any]:
        """Have a deployed model pre-label the items; the LabelRun that does it."""
        return self._post(task, "prelabel", model=model, parallel=parallel, again=again)

    def export(self, task: str, dataset: str, *, decided_only: bool = True) -> dict[str, Any]:
        """Make a dataset version of the labels; the LabelRun that does it."""
        return self._post(task, "export", dataset=dataset, decided_only=decided_only)

    def status(self, task: str) -> dict[str, Any]:
        """Where the items stand and what each labeller did."""
        return self._get(task, "status")

    def agreement(self, task: str) -> dict[str, Any]:
        """How far labellers agree with each other and with the model."""
        return self._get(task, "agreement")

    def disputes(self, task: str) -> Iterator[dict[str, Any]]:
        """Items that wait for an adjudicator."""
        return self._pages(task, "disputes")

    def rows(self, task: str) -> Iterator[dict[str, Any]]:
        """All items with all that is known of them."""
        return self._pages(task, "rows")

    def lines(self, task: str, *, form: str = "items", decided_only: bool = True) -> Iterator[str]:
        """The export as JSON lines: `form` items, or preferences."""
        params = {"form": form, "decided_only": "true" if decided_only else "false"}
        with self._connection.stream("GET", self._path(task, "export"), params=params) as response:
            yield from response.iter_lines()

    def _pages(self, task: str, verb: str) -> Iterator[dict[str, Any]]:
        after: int | None = 0
        while after is not None:
            page = self._connection.call("GET", self._path(task, verb), params={"after": after, "limit": 100})
            yield from page["rows"]
            after = page["after"]

    def _get(self, task: str, verb: str) -> dict[str, Any]:
        return dict(self._connection.call("GET", self._path(task, verb)))

    def _post(self, task: str, verb: str, **body: Any) -> dict[str, Any]:
        return dict(self._connection.call("POST", self._path(task, verb), body=body))

    def _path(self, task: str, verb: str) -> str:
        return f"/api/v1/projects/{quote(self._project, safe='')}/labels/{quote(task, safe='')}/{verb}"


def _packs(items: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    pack: list[dict[str, Any]] = []
    for item in items:
        pack.append(dict(item))
        if len(pack) == ITEMS_AT_ONCE:
            yield pack
            pack = []
    if pack:
        yield pack
