"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from conseq.serving.http.batching import Batcher, Recommended
from conseq.serving.http.live import Live

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Gauges:
    """The measures of one service, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("conseq_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "conseq_request_seconds",
            "From a request's head to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._histories = Counter("conseq_histories", "Histories recommended for.", registry=self.registry)
        self._dropped = Counter(
            "conseq_unknown_items", "Items of histories that the model does not know.", registry=self.registry
        )
        self._empty = Counter(
            "conseq_empty_histories", "Histories without a known item that were answered.", registry=self.registry
        )
        self._batches = Histogram(
            "conseq_batch_histories", "Histories in one call of the model.", buckets=SIZES, registry=self.registry
        )

    def of(self, live: Live, batcher: Batcher) -> None:
        """Also gives the state of a service's model and queue."""
        self.registry.register(_State(live, batcher))

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def recommended(self, found: Recommended) -> None:
        """Counts what was recommended."""
        self._histories.inc(len(found.items))
        self._dropped.inc(found.dropped)
        self._empty.inc(len(found.empty))

    def batch(self, histories: int) -> None:
        """Counts a call of the model."""
        self._batches.observe(histories)

    def text(self) -> bytes:
        """Gives all measures."""
        return generate_latest(self.registry)


class _State(Collector):
    """The model and the queue, read when they are asked for."""

    def __init__(self, live: Live, batcher: Batcher) -> None:
        self._live = live
        self._batcher = batcher

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        model = self._live.model
        names = {"model": model.name, "encoder": model.manifest.encoder.name, "items": str(model.manifest.n_items)}
        yield InfoMetricFamily("conseq_model", "The model that answers.", value=names)
        yield GaugeMetricFamily("conseq_model_loaded_seconds", "When it was loaded, since 1970.", value=model.at)
        yield CounterMetricFamily("conseq_model_changes", "Bundles that took over.", value=self._live.changes)
        yield CounterMetricFamily("conseq_model_failures", "Bundles that could not.", value=self._live.failures)
        yield GaugeMetricFamily("conseq_waiting", "Requests that wait for the model.", value=self._batcher.waiting)
