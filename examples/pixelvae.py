"""A VAE whose decoder is a gated PixelCNN (PixelVAE): latents say what an image is of, pixels take care of the rest.

Run: python examples/pixelvae.py [--steps 1500]

The program is a VAE's, its likelihood a distribution whose context is the latent variable. Where pixels alone explain
an image, nothing is left for the latents: the divergence that is printed says how much they carry.

PixelVAE: A Latent Variable Model for Natural Images (Gulrajani et al., 2017), https://arxiv.org/abs/1611.05013
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch.distributions import kl_divergence

from pyrogen import ELBO, log_weights, train
from pyrogen.data import digits
from pyrogen.distributions import Autoregressive
from pyrogen.models import GaussianEncoder
from pyrogen.nn import MLP, GatedPixelCNN, ScaledValues

LATENT = 8


class PixelVAE(PyroModule):
    def __init__(self, shape):
        super().__init__()
        self.pixels = GatedPixelCNN(shape, ScaledValues(2), 1, channels=16, layers=2, first_kernel=3, context=64)
        self.decoder = MLP(LATENT, 64, hidden=(128,))
        self.shape = shape

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1).expand(rows.shape))
            context = self.decoder(z)
            pixels = Autoregressive(self.pixels, coin, self.shape, context, context.shape[:-1])
            return pyro.sample("x", pixels, obs=x)


def coin(features):
    return dist.Bernoulli(logits=features[..., 0])


def main(steps: int) -> None:
    pyro.set_rng_seed(0)
    data = digits(pixels="dynamic-binary")
    network = torch.nn.Sequential(torch.nn.Flatten(-3), MLP(data.spec.num_dims, 2 * LATENT, hidden=(128,)))
    model, guide = PixelVAE(data.spec.shape), GaussianEncoder(network, data.spec)
    batches = data.batches(64, only=["x"])
    for step in train(ELBO(), model, guide, batches, lambda p: torch.optim.Adam(p, lr=2e-3), num_steps=steps):
        if step.index % 100 == 0:
            print(f"step {step.index:5d}   loss {step.loss.item() / step.rows:8.3f} nats per datum")
    x = data.eval_columns("test")["x"]
    with torch.no_grad():
        elbo = log_weights(model, guide, x, num_particles=20).mean()
        trace = pyro.poutine.trace(guide).get_trace(x)
        posterior = trace.nodes["z"]["fn"].base_dist
        carried = kl_divergence(posterior, dist.Normal(0.0, 1.0)).sum(-1).mean()
        print(f"test ELBO {elbo:.2f} nats, of which latents carry {carried:.2f}; a new digit:")
        for row in model(size=1)[0, 0].int().tolist():
            print("  " + "".join(" #"[pixel] * 2 for pixel in row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    main(**vars(parser.parse_args()))
