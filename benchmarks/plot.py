"""Plots cost against size."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.processes import Store
from benchmarks.results import Point, Results
from scheduler.local.generate import Shape


def draw(results: Results, path: Path) -> None:
    """Write a PNG with the cost of a component, and its ratio to the bare loop, by size."""
    figure, (cost, ratio) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for store, style in ((Store.MEMORY, "o-"), (Store.JETSTREAM, "s--")):
        for shape, colour in zip(Shape, ("C0", "C1", "C2"), strict=True):
            points: list[Point] = sorted(
                (one for one in results.points if one.shape is shape and one.store is store),
                key=lambda one: one.size,
            )
            if points:
                sizes = [point.size for point in points]
                label = f"{shape}, {store}"
                spent = [point.median("cpu") * 1e6 for point in points]
                cost.plot(sizes, spent, style, color=colour, label=label)
                ratio.plot(sizes, [point.ratio for point in points], style, color=colour, label=label)
    cost.set(title="CPU time of the service", ylabel="microseconds a component", ylim=(0, None))
    for floor in (0.10, 0.06, 0.04):
        ratio.axhline(floor, color="grey", linestyle=":", linewidth=1)
    ratio.set(title="Components/s over the bare loop's messages/s", ylabel="ratio", ylim=(0, None))
    for axes in (cost, ratio):
        axes.set(xlabel="components in the build", xscale="log")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    machine = results.machine
    figure.suptitle(f"{machine.cpu}, {machine.cores} cores, Python {machine.python}", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
