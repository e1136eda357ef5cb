"""Plots cost by size, of both versions and with both stores."""

from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.against.rows import Comparison
from benchmarks.processes import Store
from scheduler.local.generate import Shape


def draw(found: Comparison, path: Path) -> None:
    """Write a PNG with the cost of a component by size, a panel for each store."""
    stores = [store for store in Store if any(one.store is store for one in found.contests)]
    figure, panels = plt.subplots(
        1, len(stores), figsize=(5 * len(stores), 4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, store in zip(panels[0], stores, strict=True):
        for shape, colour in zip(Shape, ("C0", "C1", "C2"), strict=True):
            contests = sorted(
                (one for one in found.contests if one.shape is shape and one.store is store),
                key=lambda one: one.size,
            )
            if not contests:
                continue
            sizes = [one.size for one in contests]
            for version, style, rounds in (
                (found.before, "o--", [one.before for one in contests]),
                (found.after, "o-", [one.after for one in contests]),
            ):
                spent = [[block.cpu * 1e6 for block in blocks] for blocks in rounds]
                middle = [median(costs) for costs in spent]
                below = [here - min(costs) for here, costs in zip(middle, spent, strict=True)]
                above = [max(costs) - here for here, costs in zip(middle, spent, strict=True)]
                axes.errorbar(
                    sizes, middle, yerr=(below, above), fmt=style, color=colour, capsize=3, markersize=4,
                    label=f"{shape}, {version.name}",
                )  # fmt: skip
        sizes = sorted({one.size for one in found.contests})
        axes.set(title=f"--store {store}", xlabel="components in the build", xscale="log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
    # Last, since it fixes the upper end too, which is that of both panels.
    panels[0][0].set(ylabel="CPU of the service, us a component", ylim=(0, None))
    handles, labels = panels[0][0].get_legend_handles_labels()
    shapes = len({one.shape for one in found.contests})
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=shapes)
    machine = found.machine
    on = f"{machine.cpu}, {machine.cores} cores, Python {machine.python}"
    figure.suptitle(f"medians and spreads of rounds, both versions in turn; {on}", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
