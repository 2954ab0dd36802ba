"""AVB's toy of four points: how near implicit and normal posteriors bring a decoder to the best likelihood, -log 4.

Every (method, seed) appends a line to ``results/four_points.jsonl``; what is there is not run again. Posteriors of the
first seed are shown in ``docs/four_points.png``.

Run: ``python benchmarks/four_points.py [--seeds 5]``.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from pyrogen.inference import AVB, ELBO, Objective, train
from pyrogen.models import VAE, vae
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec

ROWS = RESULTS / "four_points.jsonl"
DRAWN = Path(__file__).parent.parent / "runs" / "four_points"
POINTS = torch.eye(4)
STEPS, COPIES = 8000, 64


class Critic(nn.Module):
    """A network of latents and data, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(6, 1, (128, 128, 128), nn.ELU)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.network(torch.cat([z, x], 1))


METHODS: dict[str, tuple[str, Callable[[], Objective]]] = {
    "ELBO, normal guide": ("gaussian", ELBO),
    "AVB, implicit guide": ("implicit", lambda: AVB(Critic())),
    "AVB with adaptive contrast, implicit guide": ("implicit", lambda: AVB(Critic(), contrast=16)),
}


def log_likelihood(model: VAE) -> float:
    """Average log p(x) over the four points, with the two latents on a grid."""
    axis = torch.linspace(-6, 6, 601)
    grid = torch.cartesian_prod(axis, axis)
    log_prior = model.prior().log_prob(grid)
    log_given = torch.stack([model.likelihood(model.decoder(grid)).log_prob(x.expand(len(grid), 4)) for x in POINTS])
    return float(((log_prior + log_given).logsumexp(1) + 2 * torch.log(axis[1] - axis[0])).mean())


def measure(method: str, seed: int) -> dict[str, Any]:
    """Fit once, and integrate."""
    pyro.set_rng_seed(seed)
    encoder, make = METHODS[method]
    model, guide = vae(DataSpec((4,), "binary"), latent=2, hidden=(64, 64), encoder=encoder, noise=8)  # type: ignore[arg-type]
    objective = make()

    def adam(rate: float) -> Callable[[Any], Adam]:
        return lambda parameters: Adam(parameters, lr=rate, betas=(0.5, 0.999))

    has_critic = any(p.requires_grad for p in objective.parameters())
    steps = (1, 3) if has_critic else (1, 1)
    start = time.perf_counter()
    training = train(
        objective, model, guide, [(POINTS.repeat(COPIES, 1),)], adam(1e-3), adam(2e-3) if has_critic else None,
        steps=steps, num_steps=STEPS, scheduler=lambda o: LinearLR(o, 1.0, 0.05, STEPS), ema=0.999, validate=False,
        compile=True,
    )  # fmt: skip
    for _ in training:
        pass
    seconds = time.perf_counter() - start
    with training.averaged(), torch.no_grad():
        value = log_likelihood(model)
        if seed == 0:
            DRAWN.mkdir(parents=True, exist_ok=True)
            np.save(DRAWN / f"{method}.npy", guide(POINTS.repeat_interleave(1000, 0)).numpy())
    return {"method": method, "seed": seed, "log_likelihood": value, "seconds": seconds}


def draw_figure() -> None:
    """Show the posteriors of the four points."""
    names = [name for name in METHODS if (DRAWN / f"{name}.npy").exists()]
    if not names:
        return
    figure = Figure(figsize=(3.4 * len(names), 3.5), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), 1 + i, xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
        axes.set_title(name, fontsize=9)
        for of_point in np.load(DRAWN / f"{name}.npy", allow_pickle=False).reshape(4, 1000, 2):
            axes.scatter(*of_point.T, s=2, alpha=0.5)
    figure.savefig(Path(__file__).parent.parent / "docs" / "four_points.png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in missing(ROWS, seed=range(options.seeds), method=METHODS):
        append_row(ROWS, measure(**task))
    draw_figure()
    lines = []
    for method in METHODS:
        found = [row for row in read_rows(ROWS) if row["method"] == method]
        cells = [
            mean_cell([row[key] for row in found], digits) for key, digits in (("log_likelihood", 4), ("seconds", 0))
        ]
        lines.append([method, str(len(found)), *cells])
    write(
        "four_points",
        header("Four points", "make bench-adversarial", 1, versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"Four data, the rows of the unit matrix, by independent coins around a network of two latents "
        f"(64-64), after AVB, https://arxiv.org/abs/1701.04722, whose figures are -1.568 for a VAE and -1.403 for AVB; "
        f"no model does better than -log 4 = -1.3863. {STEPS:,} steps of {4 * COPIES} rows, three of the critic for "
        f"each. log p(x) is summed over a grid of latents, averaged over the four. Mean ± standard error over seeds.",
        table(["method", "seeds", "log p(x), nats", "seconds"], lines),
    )  # fmt: skip


if __name__ == "__main__":
    main()
