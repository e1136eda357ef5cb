"""Writes metrics in the text format of Prometheus."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Written
from prometheus_client.registry import Collector

from scheduler.metrics.bounding import bounded
from scheduler.metrics.catalogue import Metric, Sort
from scheduler.metrics.histogram import Counted
from scheduler.runtime.yielding import yield_now
from scheduler.web.figures import Family, Samples

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The form that every version reads; names here are plain."""


class _Families(Collector):
    """Collector of metrics that were read before."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Written]:
        """Yield the metrics as the library writes them."""
        for metric, samples in self._families:
            yield_now()
            yield _WRITERS[metric.sort](metric, samples)


def exposition(families: Sequence[Family]) -> bytes:
    """Return metrics as text, those of the process included; to be done beside the loop."""
    registry = CollectorRegistry()
    registry.register(_Families(families))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _counter(metric: Metric, samples: Samples) -> Written:
    written = CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
    for labels, value in _numbers(samples).items():
        written.add_metric(labels, value)
    return written


def _gauge(metric: Metric, samples: Samples) -> Written:
    written = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in _numbers(samples).items():
        written.add_metric(labels, value)
    return written


def _histogram(metric: Metric, samples: Samples) -> Written:
    written = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, counted in samples:
        assert isinstance(counted, Counted)
        total, buckets = 0, []
        for bound, count in zip([*map(str, counted.bounds), "+Inf"], counted.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        written.add_metric(labels, buckets=buckets, sum_value=counted.sum)
    return written


def _numbers(samples: Samples) -> dict[tuple[str, ...], float]:
    return bounded((labels, value) for labels, value in samples if not isinstance(value, Counted))


_WRITERS: Final[dict[Sort, Callable[[Metric, Samples], Written]]] = {
    Sort.COUNTER: _counter,
    Sort.GAUGE: _gauge,
    Sort.HISTOGRAM: _histogram,
}
