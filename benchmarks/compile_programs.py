"""The programs of ``compile.py`` as Pyro's documentation would write them, each with a batch for every step."""

from collections.abc import Callable
from typing import Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["ROWS", "VAE", "DeepMarkovModel", "EightSchools", "Logistic", "Mixture", "Program", "Topics", "make"]


class Program(Protocol):
    """A model and a guide; ``batch`` are the arguments of both."""

    @property
    def batch(self) -> tuple[Tensor, ...]: ...

    @property
    def model(self) -> Callable[..., None]: ...

    @property
    def guide(self) -> Callable[..., object]: ...

    def pyro_elbo(self) -> Trace_ELBO:
        """Return the ELBO of Pyro that the program needs."""


class VAE:
    """A variational autoencoder of binary images: one hidden layer, 20 latents."""

    def __init__(self, hidden: int, size: int) -> None:
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.Softplus(), nn.Linear(hidden, 2 * 20))
        self.decoder = nn.Sequential(nn.Linear(20, hidden), nn.Softplus(), nn.Linear(hidden, 784))
        self.batch = ((torch.rand(size, 784) < 0.3).float(),)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 20), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def pyro_elbo(self) -> Trace_ELBO:
        return Trace_ELBO()


class EightSchools:
    """Effects of coaching in eight schools, and a mean-field guide.

    References:
        Estimation in Parallel Randomized Experiments (Rubin, 1981)
    """

    def __init__(self) -> None:
        y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
        sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
        start = {"mu": torch.tensor(0.0), "tau": torch.tensor(1.0), "theta": torch.zeros(8)}
        self.batch = (y, sigma)
        self.guide = AutoNormal(self.model, init_loc_fn=init_to_value(values=start))

    def model(self, y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("school", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    def pyro_elbo(self) -> Trace_ELBO:
        return Trace_ELBO()


class Logistic:
    """Bayesian logistic regression on 54 covariates, as many as Covertype has, and a mean-field guide."""

    def __init__(self) -> None:
        x = torch.randn(1000, 54)
        y = torch.bernoulli(torch.sigmoid(x @ torch.randn(54)))
        start = {"weights": torch.zeros(54), "bias": torch.tensor(0.0)}
        self.batch = (x, y)
        self.guide = AutoNormal(self.model, init_loc_fn=init_to_value(values=start))

    def model(self, x: Tensor, y: Tensor) -> None:
        weights = pyro.sample("weights", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
        bias = pyro.sample("bias", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=x @ weights + bias), obs=y)

    def pyro_elbo(self) -> Trace_ELBO:
        return Trace_ELBO()


class Mixture:
    """A mixture of five Gaussians in the plane by maximum likelihood, assignments enumerated."""

    def __init__(self) -> None:
        centres = 4 * torch.randn(5, 2)
        self.start = centres + torch.randn(5, 2)
        self.batch = (centres[torch.arange(1000) % 5] + torch.randn(1000, 2),)

    def model(self, x: Tensor) -> None:
        logits = pyro.param("logits", torch.zeros(5))
        locs = pyro.param("locs", self.start)
        scales = pyro.param("scales", torch.ones(5, 2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(locs[k], scales[k]).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pass

    def pyro_elbo(self) -> Trace_ELBO:
        return TraceEnum_ELBO(max_plate_nesting=1)


class Topics:
    """Latent Dirichlet allocation on Reuters news, topic of each word summed out, amortised logistic-normal guide.

    References:
        Autoencoding Variational Inference for Topic Models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488
    """

    def __init__(self) -> None:
        from lda.datasets import load_reuters  # an optional package, for one row

        counts = torch.from_numpy(load_reuters()[:64]).float()
        self.encoder = nn.Sequential(nn.Linear(counts.shape[1], 100), nn.Softplus(), nn.Linear(100, 2 * 20))
        self.start = torch.randn(20, counts.shape[1])
        self.batch = (counts,)

    def model(self, counts: Tensor) -> None:
        topics = pyro.param("topics", self.start).softmax(-1)
        with pyro.plate("documents", len(counts)):
            z = pyro.sample("z", dist.Normal(counts.new_zeros(len(counts), 20), 1.0).to_event(1))
            pyro.factor("counts", (counts * (z.softmax(-1) @ topics).log()).sum(-1))

    def guide(self, counts: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("documents", len(counts)):
            loc, log_scale = self.encoder(counts).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def pyro_elbo(self) -> Trace_ELBO:
        return Trace_ELBO()


class DeepMarkovModel(nn.Module):
    """A nonlinear state-space model of binary sequences, and a guide that reads them backwards.

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan, Shalit and Sontag, 2017),
        https://arxiv.org/abs/1609.09869
    """

    def __init__(self, steps: int = 129) -> None:
        super().__init__()
        self.transition = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2 * 16))
        self.emitter = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 88))
        self.rnn = nn.GRU(88, 32, batch_first=True)
        self.lift = nn.Linear(16, 32)
        self.combiner = nn.Linear(32, 2 * 16)
        self.batch = ((torch.rand(20, steps, 88) < torch.rand(88)).float(),)

    def model(self, x: Tensor) -> None:
        pyro.module("dmm", self)
        z = x.new_zeros(len(x), 16)
        with pyro.plate("sequences", len(x)):
            for t in range(x.shape[1]):
                loc, scale = self.transition(z).chunk(2, -1)
                z = pyro.sample(f"z_{t}", dist.Normal(loc, softplus(scale)).to_event(1))
                pyro.sample(f"x_{t}", dist.Bernoulli(logits=self.emitter(z)).to_event(1), obs=x[:, t])

    def guide(self, x: Tensor) -> None:
        pyro.module("dmm", self)
        read = self.rnn(x.flip(1))[0].flip(1)
        z = x.new_zeros(len(x), 16)
        with pyro.plate("sequences", len(x)):
            for t in range(x.shape[1]):
                combined = 0.5 * (torch.tanh(self.lift(z)) + read[:, t])
                loc, scale = self.combiner(combined).chunk(2, -1)
                z = pyro.sample(f"z_{t}", dist.Normal(loc, softplus(scale)).to_event(1))

    def pyro_elbo(self) -> Trace_ELBO:
        return Trace_ELBO()


ROWS: dict[str, Callable[[], Program]] = {
    "vae-400-128": lambda: VAE(400, 128),
    "vae-64-64": lambda: VAE(64, 64),
    "vae-16-16": lambda: VAE(16, 16),
    "eight-schools": EightSchools,
    "logistic": Logistic,
    "mixture": Mixture,
    "lda": Topics,
    "dmm": DeepMarkovModel,
}


def make(row: str) -> Program:
    """Make a program, its first parameters and its batch; the same each time."""
    torch.manual_seed(0)
    return ROWS[row]()
