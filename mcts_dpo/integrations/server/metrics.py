"""The metrics that Prometheus reads at `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from mcts_dpo.integrations.engine_thread import EngineThread

CONTENT_TYPE = CONTENT_TYPE_LATEST
DISCONNECTED = 499
"""The status of a request whose client disconnects before the answer."""


class Metrics:
    """The metrics of one server.

    requests: that have ended, by endpoint and status. seconds: from a request's arrival to its end, by endpoint.
    in_flight: requests that are being answered or wait. tokens: of finished requests, by kind: prompt, completion
    (returned), search (generated).
    """

    def __init__(self, thread: EngineThread) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.requests = Counter(
            "mcts_dpo_requests", "Requests that have ended", ["endpoint", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "mcts_dpo_request_seconds",
            "Seconds from arrival to end",
            ["endpoint"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250),
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "mcts_dpo_requests_in_flight", "Requests being answered or waiting", registry=self._registry
        )
        self.tokens = Counter("mcts_dpo_tokens", "Tokens of finished requests", ["kind"], registry=self._registry)
        self._registry.register(_EngineCollector(thread))

    def text(self) -> bytes:
        """All metrics, in Prometheus's format. Waits for the engine's thread: do not call it in the event loop."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """What the engine and its thread hold at the moment."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread

    def collect(self) -> Iterator[Metric]:
        thread = self._thread
        searches = GaugeMetricFamily("mcts_dpo_searches", "Searches, by where they are", labels=["state"])
        searches.add_metric(["active"], thread.active)
        searches.add_metric(["waiting"], thread.waiting)
        yield searches
        usage = thread.engine.usage
        computed = CounterMetricFamily("mcts_dpo_engine_tokens", "Tokens that the engine has computed", labels=["kind"])
        computed.add_metric(["prefill"], usage.prefill_tokens)
        computed.add_metric(["sampled"], usage.sampled_tokens)
        yield computed
        held = thread.occupancy()
        if held is not None:
            inside = GaugeMetricFamily("mcts_dpo_engine_held", "What requests under way hold", labels=["what"])
            for what in ("requests", "sequences", "tokens", "pins"):
                inside.add_metric([what], getattr(held, what))
            yield inside

    def describe(self) -> list[Metric]:
        return []
