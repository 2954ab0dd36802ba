"""Fifty labels and 1,387 digits without one: a classifier that learns from the labels alone, and M2, which sees all.

Run: python examples/semi_supervised.py [--steps 1000]
"""

import argparse
from functools import partial

import pyro
from torch.optim import Adam

from pyrogen import ELBO, MaximumLikelihood, train
from pyrogen.data import digits, known_labels
from pyrogen.evaluation import accuracy, guide_accuracy
from pyrogen.models import classifier, m2


def main(steps: int) -> None:
    pyro.set_rng_seed(0)
    data = digits(pixels="dynamic-binary", labels=50)
    test = [data.eval_columns("test")]

    labelled = known_labels(data)
    alone, _ = classifier(labelled.spec, hidden=(128,))
    for _ in train(MaximumLikelihood(), alone, None, labelled.batches(50), partial(Adam, lr=1e-3), num_steps=steps):
        pass
    print(f"classifier, 50 labels:  {accuracy(alone, test).value:.1%} of test digits are right")

    model, guide = m2(data.spec, latent=10, hidden=(128,), class_weight=20.0)
    adam = partial(Adam, lr=3e-3)
    for _ in train(ELBO(), model, guide, data.batches(100, drop_last=True), adam, num_steps=steps):
        pass
    print(f"M2, the rest as well:   {guide_accuracy(guide, test).value:.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    main(**vars(parser.parse_args()))
