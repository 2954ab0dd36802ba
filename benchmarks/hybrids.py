"""Modes found on the ring of 8 and the grid of 25 by autoencoders with critics: VEEGAN's table, by PacGAN's protocol.

Each setting trains one pair of programs, and 2,500 draws of the model are counted. Every (data, setting, seed) appends
a line to ``results/hybrids.jsonl``; what is there is not run again.

Run: ``python benchmarks/hybrids.py [--data ring grid] [--settings NAME ...] [--seeds 3]``.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from implicit import BATCH, DATA, DRAWS, EMA, LEARNING_RATE, Fresh, adam, summary
from pyro.nn import PyroModule
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from pyrogen.data.toy import Modes
from pyrogen.errors import NonFiniteError
from pyrogen.evaluation import mode_coverage
from pyrogen.inference import AAE, ALI, AVB, ELBO, GAN, R1, VEEGAN, AlphaGAN, Objective, train
from pyrogen.nn import MLP

ROWS = RESULTS / "hybrids.jsonl"
STEPS = 4000
PUBLISHED = [
    ("GAN (VEEGAN's table)", "1 / 99.3", "3.3 / 0.5"),
    ("ALI (VEEGAN's table)", "2.8 / 0.13", "15.8 / 1.6"),
    ("VEEGAN (its table)", "8 / 52.9", "24.6 / 40"),
    ("ALI (PacGAN's table)", "6.6 / 97.6", "24.1 / 95.7"),
]


class Model(PyroModule):
    """A normal distribution around a network of two-dimensional noise, half as wide as a mode."""

    def __init__(self, modes: Modes) -> None:
        super().__init__()
        self.network = MLP(2, 2, (256, 256, 256), nn.ReLU)
        self.sd = modes.sd / 2

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.network(z), self.sd).to_event(1), obs=x)


class Guide(PyroModule):
    """A normal guide, by a network of data in units of ten standard deviations of a mode."""

    def __init__(self, modes: Modes) -> None:
        super().__init__()
        self.network = MLP(2, 4, (256, 256, 256), nn.ReLU)
        self.unit = 10 * modes.sd

    def forward(self, x: Tensor) -> None:
        loc, raw_scale = self.network(x / self.unit).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 2 * raw_scale.sigmoid()).to_event(1))


class Critic(nn.Module):
    """A network of latents, of data in units of ten standard deviations of a mode, or of both."""

    def __init__(self, modes: Modes, of: str) -> None:
        super().__init__()
        self.units = {"z": [1.0], "x": [10 * modes.sd], "zx": [1.0, 10 * modes.sd]}[of]
        self.network = MLP(2 * len(self.units), 1, (128, 128, 128), nn.ReLU)

    def forward(self, *values: Tensor) -> Tensor:
        return self.network(torch.cat([v / unit for v, unit in zip(values, self.units, strict=True)], 1))


def r1(modes: Modes) -> list[R1]:
    return [R1(2 * modes.sd)]


SETTINGS: dict[str, Callable[[Modes], Objective]] = {
    "ELBO": lambda modes: ELBO(),
    "AVB, adaptive contrast": lambda modes: AVB(Critic(modes, "zx"), contrast=16),
    "AAE": lambda modes: AAE(Critic(modes, "z")),
    "ALI": lambda modes: ALI(Critic(modes, "zx"), decode="mean"),
    "ALI + R1": lambda modes: ALI(Critic(modes, "zx"), decode="mean", penalties=r1(modes)),
    "VEEGAN": lambda modes: VEEGAN(Critic(modes, "zx"), decode="mean"),
    "VEEGAN + R1": lambda modes: VEEGAN(Critic(modes, "zx"), decode="mean", penalties=r1(modes)),
    "α-GAN + R1": lambda modes: AlphaGAN(
        GAN(Critic(modes, "x"), "reverse-kl", r1(modes)), Critic(modes, "z"), weight=0.01, decode="mean"
    ),
    "GAN + R1": lambda modes: GAN(Critic(modes, "x"), penalties=r1(modes)),
}


def measure(data: str, setting: str, seed: int) -> dict[str, Any]:
    """Train with one seed; count modes of the averaged model's draws, and measure how data come back."""
    modes = DATA[data]
    torch.manual_seed(seed)
    model, guide = Model(modes), Guide(modes)
    objective = SETTINGS[setting](modes)

    def decay(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return LinearLR(optimizer, 1.0, 0.01, STEPS)

    has_critic = any(p.requires_grad for p in objective.parameters())
    has_guide = not isinstance(objective, GAN)
    start = time.perf_counter()
    training = train(
        objective, model, guide if has_guide else None, Fresh(modes), adam, adam if has_critic else None,
        num_steps=STEPS, scheduler=decay, critic_scheduler=decay if has_critic else None, ema=EMA, validate=False,
        compile=True,
    )  # fmt: skip
    row = {"data": data, "setting": setting, "seed": seed, "steps": STEPS}
    try:
        for _ in training:
            pass
    except NonFiniteError as error:
        return row | {"diverged": str(error).partition(":")[0]}
    seconds = time.perf_counter() - start
    with training.averaged(), torch.no_grad():
        draws = model(size=DRAWS)
        x = modes.sample(DRAWS)[0]
        loc = guide.network(x / guide.unit)[:, :2]
        error = (model.network(loc) - x).square().sum(1).mean().sqrt() / (2**0.5 * modes.sd)
    row |= {"seconds": seconds, "error": float(error) if has_guide else None}
    return row | mode_coverage(draws, torch.tensor(modes.centres), modes.sd)._asdict()


def write_table() -> None:
    """Write what all rows say."""
    rows = read_rows(ROWS)
    parts = [
        header("Modes found by autoencoders with critics", "make bench-adversarial", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"One pair of programs under all objectives: a normal distribution, half as wide as a mode, around a "
        f"256-256-256 ReLU network of two-dimensional noise, and a normal guide of the same size; critics are "
        f"128-128-128 networks, which see the mean of what the model draws. Batches of {BATCH}, {STEPS:,} rounds of "
        f"one step each, Adam at {LEARNING_RATE:g} with betas (0, .99), decayed linearly; parameters are averaged at "
        f"{EMA}. R1 weighs two standard deviations of a mode, α-GAN's reconstruction .01. Columns as in "
        f"`implicit.md`; error: of what comes back of data, in standard deviations of a mode (root mean square). "
        f"Mean ± standard error over seeds; KL and spread are undefined where a seed has no draw near a mode.",
    ]  # fmt: skip
    for data in DATA:
        lines = []
        for setting in SETTINGS:
            found = [row for row in rows if (row["data"], row["setting"]) == (data, setting)]
            if found:
                errors = [row["error"] for row in found if row.get("error") is not None]
                cells = summary(found)
                lines.append([setting, *cells[:5], mean_cell(errors, 2) if errors else "–", *cells[5:]])
        head = ["objective", "seeds", f"modes of {len(DATA[data].centres)}", "high quality, %", "KL", "spread", "error",
                "rounds", "seconds"]  # fmt: skip
        parts += [f"## {data.capitalize()}", table(head, lines)]
    parts += [
        "## Published",
        "Modes / high quality in %, with other networks and longer training: VEEGAN, https://arxiv.org/abs/1705.07761, "
        "and PacGAN, https://arxiv.org/abs/1712.04086.",
        table(["", "ring", "grid"], PUBLISHED),
    ]
    write("hybrids", *parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in missing(ROWS, seed=range(options.seeds), setting=options.settings, data=options.data):
        append_row(ROWS, measure(**task))
    write_table()


if __name__ == "__main__":
    main()
