"""Digits cut in half are likelier than whole ones, and some scores of outliers are fooled by that.

Run: python examples/outliers.py [--steps 300]
"""

import argparse
from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from pyrogen import MaximumLikelihood, train
from pyrogen.data import Batches, Dataset, digits, mutated
from pyrogen.evaluation import auroc, likelihood_ratio, log_densities, negative_log_likelihood, typicality
from pyrogen.models import pixelcnn


def fit(data: Dataset, steps: int) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the log-probability of each."""
    pyro.set_rng_seed(0)
    model, guide = pixelcnn(data.spec, channels=16, layers=2)
    batches = data.batches(128, only=["x"])
    for _ in train(MaximumLikelihood(), model, guide, batches, lambda p: torch.optim.Adam(p, lr=1e-3), num_steps=steps):
        pass
    return lambda x: log_densities(model, guide, Batches({"x": x}, 500, shuffle=False))


def main(steps: int) -> None:
    data = digits()
    log_p, log_p_background = fit(data, steps), fit(mutated(data, 0.2), steps)
    usual = log_p(data.eval_columns("validation")["x"])

    def scores(x: Tensor) -> dict[str, Tensor]:
        of_model = log_p(x)
        return {
            "likelihood": negative_log_likelihood(of_model),
            "ratio": likelihood_ratio(of_model, log_p_background(x)),
            "typicality": typicality(of_model, usual),
        }

    inliers = data.eval_columns("test")["x"]
    halves = inliers.clone()
    halves[:, :, 4:] = 0
    known = scores(inliers)
    for name, x in {"cut in half": halves, "upside down": inliers.flip(2)}.items():
        areas = {score: auroc(known[score], values) for score, values in scores(x).items()}
        print(f"{name}: AUROC of", ", ".join(f"{score} {a.value:.3f} ± {a.stderr:.3f}" for score, a in areas.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    main(**vars(parser.parse_args()))
