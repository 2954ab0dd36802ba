"""Held to the truth: the noise by which a benchmark judges decoders, of a linear one whose evidence is known."""

import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.models import Generator
from pyrogen.spec import DataSpec


@pytest.mark.slow
def test_one_path_finds_the_likeliest_noise(monkeypatch):
    """x = A z + b + noise of scale s is normal, with covariance A A' + s² I."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent.parent / "benchmarks"), *sys.path])
    import annealed_importance

    monkeypatch.setattr(annealed_importance, "LEAPFROG", 2)
    pyro.set_rng_seed(0)
    network = nn.Linear(2, 8)
    nn.init.normal_(network.weight)
    weight, bias = network.weight.detach().double(), network.bias.detach().double()
    x = network(torch.randn(40, 2)).detach() + 0.2 * torch.randn(40, 8)

    def evidence(scale):
        covariance = weight @ weight.T + scale**2 * torch.eye(8, dtype=torch.float64)
        return float(dist.MultivariateNormal(bias, covariance).log_prob(x.double()).mean())

    scales = torch.logspace(-1.3, 0.3, 800, dtype=torch.float64).tolist()
    best = max(scales, key=evidence)
    found = annealed_importance.best_noise(Generator(network, DataSpec((8,), "real"), 2), x, 250)
    assert found["noise"] == pytest.approx(best, rel=0.05)
    assert found["validation"] == pytest.approx(evidence(found["noise"]), abs=0.15)
    assert found["acceptance"] > 0.4
