"""One model, one family, two learning principles: covering the modes, or seeking one.

A normal distribution is fitted to a mixture of two by KL(p || q), and by KL(q || p) from two starts; all are drawn.

Run: python examples/forward_and_reverse_kl.py [--steps 2000] [--out divergences.png]
"""

import argparse

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

from pyrogen import ForwardKL, ReverseKL, train

LOCS, SCALES, WEIGHTS = torch.tensor([-3.0, 3.0]), torch.ones(2), torch.tensor([0.3, 0.7])
MIXTURE = dist.MixtureSameFamily(dist.Categorical(WEIGHTS), dist.Normal(LOCS, SCALES))


def target():
    pyro.sample("x", MIXTURE)


def fit_by(objective, start: float, steps: int) -> tuple[float, float]:
    """Return the mean and standard deviation of the fit."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)

    def guide():
        loc = pyro.param("loc", torch.tensor(start))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("x", dist.Normal(loc, scale))

    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.05)  # noqa: E731
    anneal = lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)  # noqa: E731
    for _ in train(objective, target, guide, None, adam, num_steps=steps, scheduler=anneal):
        pass
    return pyro.param("loc").item(), pyro.param("scale").item()


def main(steps: int, out: str) -> None:
    fits = {
        "KL(p || q): covers both modes": fit_by(ForwardKL(num_particles=512), 0.5, steps),
        "KL(q || p) from the right": fit_by(ReverseKL(num_particles=256), 3.0, steps),
        "KL(q || p) from the left": fit_by(ReverseKL(num_particles=256), -3.0, steps),
    }
    grid = torch.linspace(-8, 8, 400)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(grid, MIXTURE.log_prob(grid).exp(), color="0.85", label="target p")
    for name, (loc, scale) in fits.items():
        axes.plot(grid, np.exp(dist.Normal(loc, scale).log_prob(grid).numpy()), label=name)
        print(f"{name:32s} mean {loc:7.4f}   sd {scale:.4f}")
    axes.set(xlabel="x", ylabel="density", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(out, dpi=150)
    print(f"drawn in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", default="divergences.png")
    main(**vars(parser.parse_args()))
