"""Drawing element by element: steps that keep what layers saw against whole passes, by depth, position and dimension.

Networks have random weights, which change no time. Jacobi's iteration is of the gated PixelCNN that
``autoregressive_likelihood.py`` trained, since how many passes it takes depends on what was learned.

Run: ``python benchmarks/autoregressive_sampling.py``.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pyro.distributions as dist
import torch
from report import RESULTS, append_row, header, read_rows, table, versions, write
from torch import Tensor

import pyrogen
from pyrogen.distributions import Autoregressive, sample_by_jacobi
from pyrogen.nn import EmbeddedValues, GatedPixelCNN, ScaledValues, WaveNet
from pyrogen.nn.causal import Causal

ROWS = RESULTS / "autoregressive_sampling.jsonl"
TRAINED = RESULTS.parent.parent / "runs" / "autoregressive" / "gated-pixelcnn-0"
RATE = 8000
REPEATS = 3


def coin(features: Tensor) -> dist.Bernoulli:
    return dist.Bernoulli(logits=features[..., 0], validate_args=False)


def die(features: Tensor) -> dist.Categorical:
    return dist.Categorical(logits=features, validate_args=False)


def pixels(side: int) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN((1, side, side), ScaledValues(2), 1, channels=32, layers=6)


def sounds(stacks: int, channels: int = 64, skip: int = 256) -> WaveNet:
    torch.manual_seed(0)
    return WaveNet(EmbeddedValues(256, channels), 256, channels, layers=10, stacks=stacks, skip=skip)


def seconds(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the median of some runs' seconds, after one that is not counted."""
    run()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def of_steps(network: Causal, batch: int, steps: int, skip: int = 0, element: Any = die) -> float:
    """Return the seconds of a step, with the choice of its value, in the mean of some steps after others."""
    state, previous = network.start(batch), None
    with torch.no_grad():
        for i in range(skip + steps):
            if i == skip:
                begin = time.perf_counter()
            previous = element(network.step(previous, state)).sample()
    return (time.perf_counter() - begin) / steps


def of_passes(network: Causal, x: Tensor) -> float:
    """Return the seconds of a whole pass, which naive sampling takes for each element."""
    with torch.no_grad():
        return seconds(lambda: network(x))


def images() -> dict[str, Any]:
    """Time 16 images of 28 x 28, drawn whole by steps, and by one pass for each pixel."""
    network, size = pixels(28), 28 * 28
    naive = of_passes(network, torch.zeros(16, 1, 28, 28)) * size
    d = Autoregressive(network, coin, (1, 28, 28)).expand((16,))
    eager = seconds(d.sample)
    network.compile_steps()
    return {"what": "images", "naive": naive, "steps": eager, "compiled": seconds(d.sample)}


def waves() -> list[dict[str, Any]]:
    """Time an element of WaveNets of 30 layers, by a step, and by a pass over the receptive field."""
    rows = []
    for channels, skip in ((32, 32), (64, 256)):
        network = sounds(3, channels, skip)
        naive = of_passes(network, torch.zeros(1, network.receptive_field))
        row = {"what": "waves", "channels": channels, "skip": skip, "field": network.receptive_field, "naive": naive}
        row["steps"] = median(of_steps(network, 1, 300) for _ in range(REPEATS))
        network.compile_steps()
        of_steps(network, 1, 5)
        rows.append(row | {"compiled": median(of_steps(network, 1, 1000) for _ in range(REPEATS))})
    return rows


def depths() -> list[dict[str, Any]]:
    return [
        {"what": "depth", "layers": 10 * n, "steps": median(of_steps(sounds(n), 1, 300) for _ in range(REPEATS))}
        for n in (1, 2, 3, 4, 5)
    ]


def positions() -> list[dict[str, Any]]:
    network = sounds(3)
    return [
        {"what": "position", "at": at, "steps": median(of_steps(network, 1, 300, at) for _ in range(REPEATS))}
        for at in (0, 1000, 4000, 8000)
    ]


def dimensions() -> list[dict[str, Any]]:
    rows = []
    for side in (7, 14, 28, 56):
        network = pixels(side)
        d = Autoregressive(network, coin, (1, side, side)).expand((4,))
        one = of_passes(network, torch.zeros(4, 1, side, side))
        rows.append({"what": "dimension", "side": side, "steps": seconds(d.sample, 1), "naive": one * side**2})
    return rows


def jacobi() -> list[dict[str, Any]]:
    """Draw from a trained network, one by one and all at once."""
    model = pyrogen.load(str(TRAINED)).model.eval()
    rows = []
    for batch in (1, 16):
        d = model.distribution(batch)
        torch.manual_seed(0)
        found = [sample_by_jacobi(d).passes for _ in range(5)]
        by_jacobi, by_steps = seconds(lambda d=d: sample_by_jacobi(d)), seconds(d.sample)
        rows.append({"what": "jacobi", "batch": batch, "passes": found, "jacobi": by_jacobi, "steps": by_steps})
    return rows


PARTS: dict[str, Callable[[], Any]] = {
    "images": images,
    "waves": waves,
    "depth": depths,
    "position": positions,
    "dimension": dimensions,
    "jacobi": jacobi,
}


def report() -> None:
    rows = read_rows(ROWS)
    of = {what: [row for row in rows if row["what"] == what] for what in PARTS}
    sections = [part for what in PARTS if of[what] for part in SECTIONS[what](of[what])]
    found = versions("torch", "pyro-ppl", "pyrogen-ppl")
    top = header("Drawing element by element", "make bench-autoregressive", 1, found)
    write("autoregressive_sampling", top, *sections)


Rows = list[dict[str, Any]]
HOW = (("a pass for each element", "naive"), ("steps", "steps"), ("steps, compiled", "compiled"))


def of_images(rows: Rows) -> list[str]:
    row = rows[-1]
    lines = [[how, f"{row[key]:.2f}", f"{row['naive'] / row[key]:.0f}"] for how, key in HOW]
    head = "## 16 binary images of 28 x 28, gated PixelCNN of 6 layers, 32 channels"
    return [head, table(("how", "seconds", "times faster"), lines)]


def of_waves(rows: Rows) -> list[str]:
    lines = [
        [
            f"{row['channels']}, {row['skip']}",
            how,
            f"{1e3 * row[key]:.2f}",
            f"{row['naive'] / row[key]:.0f}",
            f"{1 / (RATE * row[key]):.3f}",
        ]
        for row in rows
        for how, key in HOW
    ]
    lead = (
        f"A pass is over the receptive field of {rows[-1]['field']:,} elements; a step chooses its value, too. "
        f"Published complexity of an element: O(2^L) naive, O(L) with queues (https://arxiv.org/abs/1611.09482)."
    )
    head = ("channels, skip", "how", "ms", "times faster", f"seconds of {RATE // 1000} kHz a second")
    return ["## An element of a WaveNet of 30 layers, 256 levels", lead, table(head, lines)]


def of_depths(rows: Rows) -> list[str]:
    lines = [[str(r["layers"]), f"{1e3 * r['steps']:.2f}", f"{1e6 * r['steps'] / r['layers']:.0f}"] for r in rows]
    return ["## Depth: a step of a WaveNet", table(("layers", "ms", "µs a layer"), lines)]


def of_positions(rows: Rows) -> list[str]:
    lines = [[f"{r['at']:,}", f"{1e3 * r['steps']:.2f}"] for r in rows]
    return ["## Position: a step of a WaveNet of 30 layers", table(("after elements", "ms"), lines)]


def of_dimensions(rows: Rows) -> list[str]:
    lines = [
        [
            f"{side} x {side}",
            f"{side**2:,}",
            f"{r['steps']:.2f}",
            f"{1e3 * r['steps'] / side**2:.2f}",
            f"{r['naive']:.1f}",
        ]
        for r in rows
        for side in [r["side"]]
    ]
    head = ("image", "elements", "steps, s", "ms an element", "passes, s")
    return ["## Dimension: 4 images, gated PixelCNN of 6 layers", table(head, lines)]


def of_jacobi(rows: Rows) -> list[str]:
    lines = [
        [
            str(r["batch"]),
            f"{median(r['passes']):.0f} ({min(r['passes'])} to {max(r['passes'])})",
            f"{r['jacobi']:.2f}",
            f"{r['steps']:.2f}",
        ]
        for r in rows
    ]
    head = "## Jacobi's iteration: binary digits, 784 elements, a trained gated PixelCNN"
    return [head, JACOBI, table(("images", "passes", "Jacobi, s", "steps, s"), lines)]


SECTIONS = {
    "images": of_images,
    "waves": of_waves,
    "depth": of_depths,
    "position": of_positions,
    "dimension": of_dimensions,
    "jacobi": of_jacobi,
}
JACOBI = (
    "Steps are taken one after the other, so the number of elements is the critical path, whatever the number of "
    "processors. All elements at once, until nothing changes, draws the same with fewer passes, each over all of them: "
    "that pays where a pass is hardly dearer than a step, as on an accelerator, and not on one core."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts:
        if any(row["what"] == part for row in read_rows(ROWS)):
            continue
        measured = PARTS[part]()
        for row in measured if isinstance(measured, list) else [measured]:
            append_row(ROWS, row)
    report()


if __name__ == "__main__":
    main()
