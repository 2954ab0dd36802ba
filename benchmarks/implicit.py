"""Modes found on the ring of 8 and the grid of 25 by objectives that compare samples, by the protocol of PacGAN.

Each setting trains one generator against one critic, and 2,500 draws are counted. Every (data, setting, seed) appends a
line to ``results/implicit.jsonl``; what is there is not run again.

Run: ``python benchmarks/implicit.py [--data ring grid] [--settings NAME ...] [--seeds 3] [--steps 20000]``.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import product
from statistics import mean, stdev
from typing import Any

import torch
from report import RESULTS, header, table, versions, write
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from pyrogen.data.toy import GRID, RING, Modes
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
DATA = {"ring": RING, "grid": GRID}
WIDTHS = (256, 256, 256)
BATCH, DRAWS, LEARNING_RATE, EMA = 256, 2500, 1e-3, 0.999
PUBLISHED = [
    ("GAN (VEEGAN's table)", "1 / 99.3", "3.3 / 0.5"),
    ("VEEGAN (its table)", "8 / 52.9", "24.6 / 40"),
    ("GAN (PacGAN's table)", "6.3 / 98.2", "17.3 / 94.8"),
    ("PacGAN2 (its table)", "7.9 / 95.6", "23.8 / 91.3"),
]


def critic(num_outputs: int = 1) -> nn.Module:
    return MLP(2, num_outputs, WIDTHS, nn.ReLU)


def scaled_penalty(modes: Modes) -> float:
    """R1's weight: slopes are larger where modes are narrower."""
    return 0.1 * modes.sd / 0.05


SETTINGS: dict[str, Callable[[Modes], Objective]] = {
    "non-saturating + R1": lambda modes: GAN(critic(), penalties=[R1(scaled_penalty(modes))]),
    "non-saturating": lambda modes: GAN(critic()),
    "minimax": lambda modes: GAN(critic(), "minimax"),
    "least squares": lambda modes: GAN(critic(), "least-squares"),
    "hinge": lambda modes: GAN(critic(), "hinge"),
    "non-saturating + GP": lambda modes: GAN(critic(), penalties=[Interpolated(0.1)]),
    "non-saturating + DRAGAN": lambda modes: GAN(critic(), penalties=[DRAGAN(0.1)]),
    "f-GAN, KL": lambda modes: FGAN(critic(), "kl", penalties=[R1(scaled_penalty(modes))]),
    "WGAN-GP": lambda modes: WGAN(critic(), [Interpolated(0.1)]),
    "MMD": lambda modes: MMD(RBF([modes.sd, 4 * modes.sd, 0.5, 2.0])),
    "MMD-GAN": lambda modes: MMDGAN(critic(8), penalties=[Interpolated(0.1)]),
    "energy distance": lambda modes: EnergyDistance(),
    "sliced Wasserstein": lambda modes: SlicedWasserstein(32),
    "Sinkhorn": lambda modes: Sinkhorn(blur=modes.sd, diameter=20.0),
}


class Fresh:
    """Batches that are drawn when they are due."""

    def __init__(self, modes: Modes) -> None:
        self.modes = modes

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        while True:
            yield (self.modes.sample(BATCH)[0],)


def adam(parameters: Any) -> Optimizer:
    return Adam(parameters, lr=LEARNING_RATE, betas=(0.0, 0.99))


def measure(data: str, setting: str, seed: int, steps: int) -> dict[str, Any]:
    """Train with one seed, and count modes of the averaged generator's draws."""
    modes = DATA[data]
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
    for _ in training:
        pass
    seconds = time.perf_counter() - start
    with training.averaged(), torch.no_grad():
        found = mode_coverage(model(size=DRAWS), torch.tensor(modes.centres), modes.sd)
    return {"data": data, "setting": setting, "seed": seed, "steps": steps, "seconds": seconds} | found._asdict()


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Mean and standard error of each figure over seeds."""

    def cell(name: str, factor: float = 1.0, digits: int = 1) -> str:
        values = [factor * row[name] for row in rows]
        error = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{error}"

    return [
        str(len(rows)), cell("modes"), cell("high_quality", 100.0), cell("kl", 1.0, 3), cell("spread", 1.0, 2),
        cell("seconds", 1.0, 0),
    ]  # fmt: skip


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    for seed, setting, data in product(range(options.seeds), options.settings, options.data):
        wanted = (data, setting, seed, options.steps)
        if not any((row["data"], row["setting"], row["seed"], row["steps"]) == wanted for row in read()):
            with ROWS.open("a") as file:
                file.write(json.dumps(measure(data, setting, seed, options.steps)) + "\n")
    rows = [row for row in read() if row["steps"] == options.steps]
    parts = [
        header("Modes found by objectives that compare samples", "make bench-implicit", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl", "geomloss")),
        f"Generator and critic are 256-256-256 ReLU networks of two-dimensional noise and data; batches of {BATCH}, "
        f"drawn anew for each player's step, {options.steps:,} rounds of one step each; Adam at {LEARNING_RATE:g} with "
        f"betas (0, .99), decayed linearly; the generator's parameters are averaged at {EMA}. "
        f"Of {DRAWS} draws: modes with a draw within three "
        f"standard deviations; the share of draws that are (98.9% for the data themselves, more means modes that are "
        f"too narrow); the divergence of the modes' shares from uniform, in nats; the standard deviation of modes, "
        f"relative to the data's. Mean ± standard error over seeds. Seconds are of compiled training, compilation "
        f"included.",
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
            "seconds",
        ]
        parts += [f"## {data.capitalize()}", table(head, lines)]
    parts += [
        "## Published",
        "Modes / high quality in %, with other networks and 400,000 steps: VEEGAN, https://arxiv.org/abs/1705.07761, "
        "and PacGAN, https://arxiv.org/abs/1712.04086.",
        table(["", "ring", "grid"], PUBLISHED),
    ]
    write("implicit", *parts)


if __name__ == "__main__":
    main()
