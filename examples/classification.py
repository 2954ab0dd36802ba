"""Classification is maximum likelihood: log p(y | x), with x an argument that no site observes.

Run: python examples/classification.py [--steps 400]
"""

import argparse

import pyro
import torch

from pyrogen import MaximumLikelihood, evaluate, train
from pyrogen.data import digits
from pyrogen.models import classifier


def main(steps: int) -> None:
    pyro.set_rng_seed(0)
    data = digits()
    model, guide = classifier(data.spec, hidden=(128,))
    batches = data.batches(64)
    for _ in train(MaximumLikelihood(), model, guide, batches, lambda p: torch.optim.Adam(p, lr=2e-3), num_steps=steps):
        pass
    for name, figure in evaluate(model, guide, data).items():
        print(f"{name:16s} {figure.value:8.4f} ± {figure.stderr:.4f} {figure.unit}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    main(**vars(parser.parse_args()))
