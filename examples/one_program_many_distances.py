"""One program without a density, learned by a critic, kernels, distances and transport: only the objective changes.

Run: python examples/one_program_many_distances.py [--steps 3000] [--out many_distances.png]
"""

import argparse

import matplotlib
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.nn import PyroModule
from torch import nn

from pyrogen import train
from pyrogen.data import RING
from pyrogen.distributions import Implicit
from pyrogen.evaluation import energy_distance, mode_coverage
from pyrogen.inference import GAN, MMD, R1, RBF, EnergyDistance, SlicedWasserstein
from pyrogen.nn import MLP

OBJECTIVES = {
    "GAN with R1": lambda: GAN(MLP(2, 1, (128, 128), nn.ReLU), penalties=[R1(0.02)]),
    "MMD": lambda: MMD(RBF([0.05, 0.2, 1.0])),
    "energy distance": lambda: EnergyDistance(),
    "sliced Wasserstein": lambda: SlicedWasserstein(),
}


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = MLP(2, 2, (128, 128), nn.ReLU)

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", Implicit(lambda shape: self.net(z), (2,), z.shape[:1]), obs=x)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99))


def main(steps: int, out: str | None) -> None:
    figure = Figure(figsize=(3 * len(OBJECTIVES), 3.2), layout="constrained")
    real, _ = RING.sample(2000)
    for axes, (name, make) in zip(figure.subplots(1, len(OBJECTIVES)), OBJECTIVES.items(), strict=True):
        pyro.set_rng_seed(0)
        model, objective = Model(), make()
        batches = [RING.sample(256)[0] for _ in range(100)]
        critic = adam if list(objective.parameters()) else None
        for _ in train(objective, model, None, batches, adam, critic, num_steps=steps, ema=0.99):
            pass
        with torch.no_grad():
            fake = model(size=2000)
        found = mode_coverage(fake, torch.tensor(RING.centres), RING.sd)
        distance = energy_distance(real, fake)
        near = f"{found.modes} of 8 modes, {found.high_quality:.0%} near them"
        print(f"{name:<20} energy distance {distance.value:7.4f}   {near}")
        axes.scatter(*real.T, s=2, color="lightgrey")
        axes.scatter(*fake.T, s=1)
        axes.set(title=name, xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    if out:
        figure.savefig(out, dpi=120)


if __name__ == "__main__":
    matplotlib.use("agg")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default=None)
    main(**vars(parser.parse_args()))
