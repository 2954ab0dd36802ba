"""Which labels to ask for: of what members of an ensemble are sure of, each of another label, or of any.

Run: python examples/active_learning.py [--steps 80]
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrogen import MaximumLikelihood, train
from pyrogen.data import digits
from pyrogen.evaluation import mean, mutual_information

FIRST, ASKED, ROUNDS, SEEDS = 40, 20, 6, 4


class Ensemble(nn.Module):
    """Networks of other first weights each, which learn from the same labels."""

    def __init__(self, members: int = 8, width: int = 32) -> None:
        super().__init__()
        self.bias, self.into = (nn.Parameter(torch.randn(members, size, width) / 4) for size in (1, 64))
        self.out = nn.Parameter(torch.randn(members, width, 10) / width**0.5)

    def log_probs(self, x: Tensor) -> Tensor:
        return (torch.relu(x @ self.into + self.bias) @ self.out).log_softmax(-1)

    def forward(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("members", len(self.out), dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=self.log_probs(x)), obs=y.expand(len(self.out), -1))


def learn(by_information: bool, seed: int, steps: int) -> list[float]:
    """Return the accuracy on held-out digits after each round."""
    pyro.set_rng_seed(seed)
    data = digits(validation=0, test=0.25)
    (x, y), (test, labels) = ((of["x"].flatten(1) / 16, of["y"]) for of in (data.train, data.test))
    known, accuracy = torch.randperm(len(x))[:FIRST], []
    for _ in range(ROUNDS + 1):
        model, batches = Ensemble(), [{"x": x[known], "y": y[known]}] * steps
        list(train(MaximumLikelihood(), model, None, batches, lambda p: torch.optim.Adam(p, 0.02), num_steps=steps))
        with torch.no_grad():
            accuracy.append(float((model.log_probs(test).exp().mean(0).argmax(-1) == labels).double().mean()))
            score = mutual_information(model.log_probs(x)) if by_information else torch.rand(len(x))
        known = torch.cat([known, score.index_fill(0, known, -1.0).topk(ASKED).indices])
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    steps = parser.parse_args().steps
    chosen, random = (torch.tensor([learn(way, seed, steps) for seed in range(SEEDS)]) for way in (True, False))
    print(f"{'labels':>6} {'by information':>15} {'at random':>16} {'difference':>16}")
    for i in range(ROUNDS + 1):
        found = [mean(of[:, i], "fraction") for of in (chosen, random, chosen - random)]
        print(f"{FIRST + i * ASKED:>6}", *(f"{of.value:8.3f} ± {of.stderr:.3f}" for of in found))
