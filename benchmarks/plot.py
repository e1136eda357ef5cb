"""A picture of cost against size."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.results import Point, Results
from scheduler.generate import Shape


def draw(results: Results, path: Path) -> None:
    """Write a PNG: what a component costs, and how that compares with the bare loop, by size."""
    figure, (cost, ratio) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for shape in Shape:
        points: list[Point] = sorted(
            (one for one in results.points if one.shape is shape), key=lambda one: one.size
        )
        if points:
            sizes = [point.size for point in points]
            cost.plot(sizes, [point.median("cpu") * 1e6 for point in points], "o-", label=shape.value)
            ratio.plot(sizes, [point.ratio for point in points], "o-", label=shape.value)
    cost.set(title="CPU time of the service", ylabel="microseconds a component", ylim=(0, None))
    ratio.axhline(0.10, color="grey", linestyle=":", linewidth=1)
    ratio.axhline(0.06, color="grey", linestyle=":", linewidth=1)
    ratio.set(title="Components/s over the bare loop's messages/s", ylabel="ratio", ylim=(0, None))
    for axes in (cost, ratio):
        axes.set(xlabel="components in the build", xscale="log")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    machine = results.machine
    figure.suptitle(f"{machine.cpu}, {machine.cores} cores, Python {machine.python}", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
