"""Fill in a table of which a third is missing, and say how sure that is: a MIWAE of the breast-cancer data.

Run: python examples/missing_values.py [--steps 1000]
"""

import argparse

import pyro
import torch

from pyrogen import IWAE, train
from pyrogen.data import Batches, breast_cancer
from pyrogen.evaluation import impute
from pyrogen.models import miwae


def main(steps: int) -> None:
    pyro.set_rng_seed(0)
    data = breast_cancer(validation=0.0, test=0.0)
    full = data.train["x"]
    x = full.masked_fill(torch.rand_like(full) < 1 / 3, torch.nan)
    missing = x.isnan()

    model, guide = miwae(data.spec, latent=8, hidden=(64,), encoder="gaussian")
    batches = Batches({"x": x}, 64)
    adam = lambda p: torch.optim.Adam(p, lr=2e-3)  # noqa: E731
    for step in train(IWAE(num_particles=10), model, guide, batches, adam, num_steps=steps, validate=False):
        if step.index % 300 == 0:
            print(f"step {step.index:5d}   loss {step.loss.item() / step.rows:8.3f} nats per datum")

    found = impute(model, guide, x, num_particles=500, num_draws=50)
    print(f"mean squared error {(found.mean - full)[missing].square().mean():.3f},")
    print(f"of the mean of each column {(x.nanmean(0) - full)[missing].square().mean():.3f}")
    low, high = found.draws.quantile(torch.tensor([0.05, 0.95]), 0)
    inside = ((full >= low) & (full <= high))[missing].float().mean()
    print(f"{inside:.0%} of missing values lie between the 5th and 95th per cent of the draws; 90% should")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    main(**vars(parser.parse_args()))
