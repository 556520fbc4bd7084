"""The gateway's figures as Prometheus text. Own counters: a labelled increment must cost well under a microsecond."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from atoll.serving.gateway.usage import Tokens

Labels = tuple[str, ...]
DURATION_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Histogram:
    """Observations of one label set, by bucket."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_S) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(DURATION_S, value)] += 1
        self.total += value


class Metrics:
    """Counts what passes; `render` says it in Prometheus' text format 0.0.4."""

    def __init__(self) -> None:
        self.requests: Counter[Labels] = Counter()  # route, model, status
        self.tokens: Counter[Labels] = Counter()  # model, kind
        self.upstream_errors: Counter[Labels] = Counter()  # model, kind
        self.unmetered: Counter[Labels] = Counter()  # model
        self.durations: dict[Labels, Histogram] = {}  # route, model
        self.first_tokens: dict[Labels, Histogram] = {}  # route, model
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def count(self, route: str, model: str, status: int) -> None:
        """One answer that used no model, or was refused before it reached one."""
        self.requests[route, model, str(status)] += 1

    def observe(self, route: str, model: str, status: int, duration_s: float, ttft_s: float | None) -> None:
        """One request that reached a model, ended."""
        self.requests[route, model, str(status)] += 1
        _of(self.durations, (route, model)).observe(duration_s)
        if ttft_s is not None:
            _of(self.first_tokens, (route, model)).observe(ttft_s)

    def use(self, model: str, tokens: Tokens | None) -> None:
        """Tokens of one request; None when the engine did not say."""
        if tokens is None:
            self.unmetered[(model,)] += 1
            return
        self.tokens[model, "prompt"] += tokens.prompt
        self.tokens[model, "completion"] += tokens.completion
        self.tokens[model, "cached"] += tokens.cached

    def render(self) -> bytes:
        lines: list[str] = []
        counted = (
            ("requests", "Requests answered.", ("route", "model", "status"), self.requests),
            ("tokens", "Tokens metered.", ("model", "kind"), self.tokens),
            ("upstream_errors", "Attempts on a replica that failed.", ("model", "kind"), self.upstream_errors),
            ("unmetered", "Answers without usage.", ("model",), self.unmetered),
        )
        for name, text, labels, values in counted:
            lines += _counter(f"atoll_gateway_{name}_total", text, labels, values)
        lines += _histogram("atoll_gateway_duration_seconds", "Time to the end of an answer.", self.durations)
        lines += _histogram("atoll_gateway_first_token_seconds", "Time to the first token.", self.first_tokens)
        for name, (text, read) in self.gauges.items():
            lines += [f"# HELP atoll_gateway_{name} {text}", f"# TYPE atoll_gateway_{name} gauge"]
            lines.append(f"atoll_gateway_{name} {read():g}")
        return "\n".join([*lines, ""]).encode()


def _of(histograms: dict[Labels, Histogram], labels: Labels) -> Histogram:
    histogram = histograms.get(labels)
    if histogram is None:
        histogram = histograms[labels] = Histogram()
    return histogram


def _labelled(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = zip(names, values, strict=True)
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _counter(name: str, text: str, names: Labels, values: Mapping[Labels, int]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} counter"]
    return lines + [f"{name}{{{_labelled(names, labels)}}} {value}" for labels, value in values.items()]


def _histogram(name: str, text: str, histograms: Mapping[Labels, Histogram]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
    for labels, histogram in histograms.items():
        shown, below = _labelled(("route", "model"), labels), 0
        for bound, count in zip((*DURATION_S, "+Inf"), histogram.buckets, strict=True):
            below += count
            lines.append(f'{name}_bucket{{{shown},le="{bound}"}} {below}')
        lines += [f"{name}_sum{{{shown}}} {histogram.total:.6f}", f"{name}_count{{{shown}}} {below}"]
    return lines
