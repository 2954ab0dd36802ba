"""A model and a guide of your own, fitted by the ELBO: a VAE in twelve lines.

Run: python examples/own_model.py [--steps 600]
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from pyrogen import ELBO, log_weights, train
from pyrogen.data import digits


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64), nn.Unflatten(-1, (1, 8, 8)))

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            return pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(3), obs=x)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def main(steps: int) -> None:
    pyro.set_rng_seed(0)
    data = digits(pixels="dynamic-binary")
    model, guide = Model(), Guide()
    batches = data.batches(64, only=["x"])
    for step in train(ELBO(), model, guide, batches, lambda p: torch.optim.Adam(p, lr=2e-3), num_steps=steps):
        if step.index % 100 == 0:
            print(f"step {step.index:5d}   loss {step.loss.item() / step.rows:8.3f} nats per datum")
    with torch.no_grad():
        log_w = log_weights(model, guide, data.eval_columns("test")["x"], num_particles=100)
    print(f"test ELBO {log_w.mean():.2f} nats; a new digit:")
    for row in model(size=1)[0, 0].int().tolist():
        print("  " + "".join(" #"[pixel] * 2 for pixel in row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    main(**vars(parser.parse_args()))
