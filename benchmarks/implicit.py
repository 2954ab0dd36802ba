"""Modes found on the ring of 8 and the grid of 25 by objectives that compare samples, by the protocol of PacGAN.

Each setting trains one generator, and 2,500 draws are counted. Every (data, setting, seed) appends a line to
``results/implicit.jsonl``; what is there is not run again. Draws of the first seed are kept in ``runs/implicit``, and
shown in ``docs/implicit.png`` once all are there.

Run: ``python benchmarks/implicit.py [--data ring grid] [--settings NAME ...] [--seeds 3]``.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from pyrogen.data.toy import GRID, RING, Modes
from pyrogen.errors import NonFiniteError
from pyrogen.evaluation import mode_coverage
from pyrogen.inference import (
    DRAGAN,
    FGAN,
    GAN,
    MMD,
    MMDGAN,
    R1,
    RBF,
    WGAN,
    EnergyDistance,
    Interpolated,
    Objective,
    Sinkhorn,
    SlicedWasserstein,
    train,
)  # fmt: skip
from pyrogen.models import Generator
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec

ROWS = RESULTS / "implicit.jsonl"
DRAWN = Path(__file__).parent.parent / "runs" / "implicit"
DATA = {"ring": RING, "grid": GRID}
WIDTHS, CRITIC_WIDTHS = (256, 256, 256), (128, 128, 128)
BATCH, DRAWS, LEARNING_RATE, EMA = 256, 2500, 1e-3, 0.999
PUBLISHED = [
    ("GAN (VEEGAN's table)", "1 / 99.3", "3.3 / 0.5"),
    ("VEEGAN (its table)", "8 / 52.9", "24.6 / 40"),
    ("GAN (PacGAN's table)", "6.3 / 98.2", "17.3 / 94.8"),
    ("PacGAN2 (its table)", "7.9 / 95.6", "23.8 / 91.3"),
]


class Critic(nn.Module):
    """A network that sees data in units of ten standard deviations of a mode."""

    def __init__(self, modes: Modes, num_outputs: int = 1) -> None:
        super().__init__()
        self.unit = 10 * modes.sd
        self.network = MLP(2, num_outputs, CRITIC_WIDTHS, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x / self.unit)


def r1(modes: Modes) -> R1:
    """R1 with a weight for the data's units: slopes are larger where modes are narrower."""
    return R1(2 * modes.sd)


BEST = "non-saturating + R1, longer"
SETTINGS: dict[str, Callable[[Modes], Objective]] = {
    BEST: lambda modes: GAN(Critic(modes), penalties=[r1(modes)]),
    "non-saturating + R1": lambda modes: GAN(Critic(modes), penalties=[r1(modes)]),
    "non-saturating": lambda modes: GAN(Critic(modes)),
    "non-saturating + GP": lambda modes: GAN(Critic(modes), penalties=[Interpolated(0.1)]),
    "non-saturating + DRAGAN": lambda modes: GAN(Critic(modes), penalties=[DRAGAN(0.1)]),
    "minimax": lambda modes: GAN(Critic(modes), "minimax"),
    "minimax + GP": lambda modes: GAN(Critic(modes), "minimax", [Interpolated(0.1)]),
    "minimax + DRAGAN": lambda modes: GAN(Critic(modes), "minimax", [DRAGAN(0.1)]),
    "WGAN, clipped": lambda modes: WGAN(Critic(modes), clip=0.1),
    "WGAN + GP": lambda modes: WGAN(Critic(modes), [Interpolated(0.1)]),
    "WGAN + DRAGAN": lambda modes: WGAN(Critic(modes), [DRAGAN(0.1)]),
    "least squares": lambda modes: GAN(Critic(modes), "least-squares"),
    "hinge": lambda modes: GAN(Critic(modes), "hinge"),
    "f-GAN, KL + R1": lambda modes: FGAN(Critic(modes), "kl", penalties=[r1(modes)]),
    "MMD-GAN + GP": lambda modes: MMDGAN(Critic(modes, 8), penalties=[Interpolated(0.1)]),
    "MMD": lambda modes: MMD(RBF([modes.sd, 4 * modes.sd, 0.5, 2.0])),
    "energy distance": lambda modes: EnergyDistance(),
    "sliced Wasserstein": lambda modes: SlicedWasserstein(32),
    "Sinkhorn": lambda modes: Sinkhorn(blur=modes.sd, diameter=20.0),
}
STEPS = {name: 20_000 if name == BEST else 4_000 for name in SETTINGS}


class Fresh:
    """Batches that are drawn when they are due."""

    def __init__(self, modes: Modes) -> None:
        self.modes = modes

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        while True:
            yield (self.modes.sample(BATCH)[0],)


def adam(parameters: Any) -> Optimizer:
    return Adam(parameters, lr=LEARNING_RATE, betas=(0.0, 0.99))


def measure(data: str, setting: str, seed: int) -> dict[str, Any]:
    """Train with one seed, and count modes of the averaged generator's draws."""
    modes, steps = DATA[data], STEPS[setting]
    torch.manual_seed(seed)
    network = MLP(2, 2, WIDTHS, nn.ReLU)
    model = Generator(network, DataSpec((2,), "real"), latent=2)
    objective = SETTINGS[setting](modes)

    def decay(optimizer: Optimizer) -> LRScheduler:
        return LinearLR(optimizer, 1.0, 0.01, steps)

    has_critic = any(p.requires_grad for p in objective.parameters())
    start = time.perf_counter()
    training = train(
        objective, model, None, Fresh(modes), adam, adam if has_critic else None, num_steps=steps, scheduler=decay,
        critic_scheduler=decay if has_critic else None, ema=EMA, validate=False, compile=True,
    )  # fmt: skip
    try:
        for _ in training:
            pass
    except NonFiniteError as error:
        at = str(error).partition(":")[0]
        return {"data": data, "setting": setting, "seed": seed, "steps": steps, "diverged": at}
    seconds = time.perf_counter() - start
    with training.averaged(), torch.no_grad():
        draws = model(size=DRAWS)
    found = mode_coverage(draws, torch.tensor(modes.centres), modes.sd)
    if seed == 0:
        DRAWN.mkdir(parents=True, exist_ok=True)
        np.save(DRAWN / f"{data}, {setting}.npy", draws.numpy())
    return {"data": data, "setting": setting, "seed": seed, "steps": steps, "seconds": seconds} | found._asdict()


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Mean and standard error of each figure over seeds that did not diverge."""
    count, rows = len(rows), [row for row in rows if "diverged" not in row]
    if not rows:
        return [f"{count}, all diverged", *["–"] * 6]

    def cell(name: str, factor: float = 1.0, digits: int = 1) -> str:
        return mean_cell([factor * row[name] for row in rows], digits)

    seeds = str(count) if len(rows) == count else f"{count}, {count - len(rows)} diverged"
    return [
        seeds, cell("modes"), cell("high_quality", 100.0), cell("kl", 1.0, 3), cell("spread", 1.0, 2),
        str(rows[0]["steps"]), cell("seconds", 1.0, 0),
    ]  # fmt: skip


def draw_figure() -> None:
    """Show the first seed's draws of all settings, if all have run."""
    done = {(row["data"], row["setting"]) for row in read_rows(ROWS)}
    if len(done) < len(DATA) * len(SETTINGS):
        return
    columns = -(-len(SETTINGS) // 2)
    figure = Figure(figsize=(1.5 * columns, 6.8), layout="constrained")
    axes = figure.subplots(4, columns)
    for (i, data), (j, setting) in product(enumerate(DATA), enumerate(SETTINGS)):
        place = axes[2 * (j // columns) + i, j % columns]
        path = DRAWN / f"{data}, {setting}.npy"
        place.scatter(*np.array(DATA[data].centres).T, s=14, facecolors="none", edgecolors="lightgrey", linewidths=0.8)
        if path.exists():
            place.scatter(*np.load(path, allow_pickle=False).T, s=0.4, color="C0")
        else:
            place.text(0, 0, "diverged", ha="center", fontsize=8)
        limit = 1.3 * np.abs(DATA[data].centres).max()
        place.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
        if not i:
            place.set_title(setting.replace("non-saturating", "NS"), fontsize=8)
    for place in axes[2:, len(SETTINGS) - columns :].flat:
        place.set_axis_off()
    figure.savefig(Path(__file__).parent.parent / "docs" / "implicit.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in missing(ROWS, seed=range(options.seeds), setting=options.settings, data=options.data):
        append_row(ROWS, measure(**task))
    draw_figure()
    rows = read_rows(ROWS)
    parts = [
        header("Modes found by objectives that compare samples", "make bench-implicit", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl", "geomloss")),
        f"The generator is a 256-256-256 ReLU network of two-dimensional noise, the critic a 128-128-128 one of data "
        f"in units of ten standard deviations of a mode; batches of {BATCH}, drawn anew for each player's step, "
        f"rounds of one step each; Adam at {LEARNING_RATE:g} with betas (0, .99), decayed linearly; the generator's "
        f"parameters are averaged at {EMA}. Of {DRAWS} draws: modes with a draw within three standard deviations; the "
        f"share of draws that are (98.9% for the data themselves, more means modes that are too narrow); the "
        f"divergence of the modes' shares from uniform, in nats; the standard deviation of modes, relative to the "
        f"data's. Weights, in the data's units and given the standard deviation s of a mode: R1 2 s, the interpolated "
        f"penalty (GP) and DRAGAN .1; weights of the clipped critic within .1; MMD by RBF kernels of bandwidths s, 4 "
        f"s, .5 and 2; Sinkhorn's blur s. Mean ± standard error over seeds. Seconds are of compiled training by one "
        f"thread, compilation included, on a machine that had other work.",
    ]  # fmt: skip
    for data in DATA:
        lines = [
            [setting, *summary(found)]
            for setting in SETTINGS
            if (found := [row for row in rows if (row["data"], row["setting"]) == (data, setting)])
        ]
        head = [
            "objective",
            "seeds",
            f"modes of {len(DATA[data].centres)}",
            "high quality, %",
            "KL",
            "spread",
            "rounds",
            "seconds",
        ]
        parts += [f"## {data.capitalize()}", table(head, lines)]
    parts += [
        "## Published",
        "Modes / high quality in %, with other networks, and 400,000 steps in PacGAN's table: VEEGAN, "
        "https://arxiv.org/abs/1705.07761, and PacGAN, https://arxiv.org/abs/1712.04086.",
        table(["", "ring", "grid"], PUBLISHED),
    ]
    write("implicit", *parts)


if __name__ == "__main__":
    main()
