"""The metrics page says what was counted, in Prometheus' own terms."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from atoll.serving.gateway.metrics import Metrics
from atoll.serving.gateway.usage import Tokens


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_page_is_read_by_prometheus_own_parser() -> None:
    metrics = Metrics()
    metrics.count("models", "", 200)
    metrics.observe("chat", 'odd"\\name\n', 200, 0.02, 0.004)
    metrics.use('odd"\\name\n', Tokens(7, 5, 3))
    metrics.use("mute", None)
    metrics.gauges["lag"] = ("Lag.", lambda: 4.0)
    seen = samples(metrics)
    assert seen["atoll_gateway_requests_total", ("models", "", "200")] == 1
    assert seen["atoll_gateway_tokens_total", ('odd"\\name\n', "completion")] == 5
    assert seen["atoll_gateway_unmetered_total", ("mute",)] == 1
    assert seen["atoll_gateway_lag", ()] == 4


def test_histograms_are_cumulative() -> None:
    metrics = Metrics()
    for duration_s in (0.005, 0.02, 0.02, 1000.0):
        metrics.observe("chat", "m", 200, duration_s, None)
    seen = samples(metrics)
    buckets = {
        bound: seen["atoll_gateway_duration_seconds_bucket", ("chat", "m", bound)]
        for bound in ("0.005", "0.025", "+Inf")
    }
    assert buckets == {"0.005": 1, "0.025": 3, "+Inf": 4}
    assert seen["atoll_gateway_duration_seconds_count", ("chat", "m")] == 4
    assert abs(seen["atoll_gateway_duration_seconds_sum", ("chat", "m")] - 1000.045) < 1e-6
    assert ("atoll_gateway_first_token_seconds_count", ("chat", "m")) not in seen
