"""Eight schools with an implicit posterior: AVB with adaptive contrast, against normal guides, NUTS and quadrature.

Every (method, seed) appends a line to ``results/eight_schools.jsonl``; what is there is not run again. Draws of the
first seed are kept in ``runs/eight_schools`` and shown in ``docs/eight_schools.png``.

Run: ``python benchmarks/eight_schools.py [--methods NAME ...] [--seeds 5]``.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from pyrogen.inference import AVB, ELBO, train
from pyrogen.models import AutoImplicit

ROWS = RESULTS / "eight_schools.jsonl"
DRAWN = Path(__file__).parent.parent / "runs" / "eight_schools"
EFFECTS = torch.tensor([2.8, 0.8, -0.3, 0.7, -0.1, 0.1, 1.8, 1.2])
ERRORS = torch.tensor([0.8, 0.5, 0.8, 0.6, 0.5, 0.6, 0.5, 0.4])
STEPS, BATCH, CONTRAST, DRAWS = 8000, 512, 256, 40_000


def model() -> None:
    r"""Rubin's eight schools, in tens of points: :math:`\theta_j = \mu + \tau \eta_j`, with standard normal priors.

    :math:`\tau` may be negative, so that the posterior has two modes: one is the other with its sign turned.
    """
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("tau", dist.Normal(0.0, 1.0))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(torch.zeros(8), 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, ERRORS), obs=EFFECTS)


class Residual(nn.Module):
    """A block of two layers whose output is added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Critic(nn.Module):
    """A quadratic form of the ten latents, as of two normal distributions, and a residual network of its terms."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.quadratic = nn.Linear(65, 1)
        blocks = [Residual(width), Residual(width), nn.ELU()]
        self.network = nn.Sequential(nn.Linear(65, width), *blocks, nn.Linear(width, 1))

    def forward(self, *latents: Tensor) -> Tensor:
        z = torch.cat([value.reshape(len(value), -1) for value in latents], 1)
        rows, columns = torch.triu_indices(10, 10)
        terms = torch.cat([z, z[:, rows] * z[:, columns]], 1)
        return self.quadratic(terms) + self.network(terms)


Draws = dict[str, Tensor]


def avb() -> Draws:
    """Fit an implicit posterior."""
    guide = AutoImplicit(model)
    steps = train(
        AVB(Critic(), contrast=CONTRAST, num_particles=BATCH),
        model,
        guide,
        None,
        lambda p: Adam(p, lr=1e-3, betas=(0.5, 0.999)),
        lambda p: Adam(p, lr=2e-3, betas=(0.5, 0.999)),
        steps=(1, 3),
        num_steps=STEPS,
        ema=0.999,
        scheduler=lambda optimizer: LinearLR(optimizer, 1.0, 0.05, STEPS),
        critic_scheduler=lambda optimizer: LinearLR(optimizer, 1.0, 0.3, 3 * STEPS),
        validate=False,
        compile=True,
    )
    for _ in steps:
        pass
    with steps.averaged():
        return drawn(guide)


def normal(make: Callable[..., Any]) -> Callable[[], Draws]:
    """Fit a normal guide by the ELBO."""

    def fit() -> Draws:
        guide = make(model, init_scale=0.1)
        steps = train(
            ELBO(num_particles=16), model, guide, None, lambda p: Adam(p, lr=0.01), num_steps=3000, validate=False,
            scheduler=lambda optimizer: LinearLR(optimizer, 1.0, 0.05, 3000), ema=0.99,
        )  # fmt: skip
        for _ in steps:
            pass
        with steps.averaged():
            return drawn(guide)

    return fit


def nuts() -> Draws:
    """Sample by NUTS, four chains."""
    draws = []
    for chain in range(4):
        pyro.set_rng_seed(1000 + chain + torch.initial_seed())
        mcmc = MCMC(NUTS(model, ignore_jit_warnings=True), 1000, 500, disable_progbar=True)
        mcmc.run()
        draws.append(mcmc.get_samples())
    return {name: torch.cat([chain[name] for chain in draws]) for name in ("mu", "tau")}


@torch.no_grad()
def drawn(guide: Callable[[], Any]) -> Draws:
    """Draw from a guide."""
    with pyro.plate("draws", DRAWS, dim=-2):
        found = guide()
    return {name: found[name].reshape(DRAWS, -1)[:, 0] for name in ("mu", "tau")}


METHODS: dict[str, Callable[[], Draws]] = {
    "AVB, implicit": avb,
    "mean-field normal": normal(AutoNormal),
    "full-rank normal": normal(AutoMultivariateNormal),
    "NUTS, 4 chains": nuts,
}


def exact() -> tuple[Tensor, Tensor, Tensor]:
    r"""Return grids of :math:`\mu` and :math:`\tau` and their exact joint density: :math:`\eta` is summed out."""
    mu, tau = torch.linspace(-1.5, 3.0, 901, dtype=torch.float64), torch.linspace(-4.0, 4.0, 1601, dtype=torch.float64)
    log_p = dist.Normal(0.0, 1.0).log_prob(mu)[:, None] + dist.Normal(0.0, 1.0).log_prob(tau)
    for effect, error in zip(EFFECTS.double(), ERRORS.double(), strict=True):
        log_p = log_p + dist.Normal(mu[:, None], (error**2 + tau**2).sqrt()).log_prob(effect)
    return mu, tau, (log_p - log_p.logsumexp((0, 1))).exp()


def exact_moments() -> dict[str, float]:
    """Return the exact figures, by quadrature."""
    mu, tau, p = exact()
    of_mu, of_tau = p.sum(1), p.sum(0)
    mean, size = (of_mu * mu).sum(), (of_tau * tau.abs()).sum()
    return {
        "mu": float(mean), "mu_sd": float((of_mu * (mu - mean) ** 2).sum().sqrt()),
        "tau": float(size), "tau_sd": float((of_tau * (tau.abs() - size) ** 2).sum().sqrt()),
        "negative": 0.5, "at_zero": float(of_tau[800] / of_tau.max()),
    }  # fmt: skip


def moments(draws: Draws) -> dict[str, float]:
    """Return the same figures of draws; the density at zero against the peak, by bins of a tenth."""
    mu, tau = draws["mu"], draws["tau"]
    heights = torch.histc(tau, bins=41, min=-2.05, max=2.05)
    return {
        "mu": float(mu.mean()), "mu_sd": float(mu.std()), "tau": float(tau.abs().mean()),
        "tau_sd": float(tau.abs().std()), "negative": float((tau < 0).float().mean()),
        "at_zero": float(heights[20] / ((heights + heights.flip(0)) / 2).max()),
    }  # fmt: skip


def measure(method: str, seed: int) -> dict[str, Any]:
    """Fit once, and measure the draws."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    start = time.perf_counter()
    draws = METHODS[method]()
    seconds = time.perf_counter() - start
    if seed == 0:
        DRAWN.mkdir(parents=True, exist_ok=True)
        np.savez(DRAWN / f"{method}.npz", **{name: value.numpy() for name, value in draws.items()})
    return {"method": method, "seed": seed, **moments(draws), "seconds": seconds}


def write_table() -> None:
    """Write what all rows say, beside the exact figures and the distance from them in posterior standard deviations."""
    rows, truth = read_rows(ROWS), exact_moments()
    keys = ["mu", "mu_sd", "tau", "tau_sd", "negative", "at_zero"]
    lines = [["exact", "", *(f"{truth[key]:.3f}" for key in keys), "", ""]]
    for method in METHODS:
        found = sorted((row for row in rows if row["method"] == method), key=lambda row: row["seed"])
        if not found:
            continue
        means = {key: sum(row[key] for row in found) / len(found) for key in keys}
        sds = {"mu": truth["mu_sd"], "mu_sd": truth["mu_sd"], "tau": truth["tau_sd"], "tau_sd": truth["tau_sd"]}
        worst = max(abs(means[key] - truth[key]) / sd for key, sd in sds.items())
        balanced = sum(0.25 <= row["negative"] <= 0.75 for row in found)
        cells = [mean_cell([row[key] for row in found], 3) for key in keys]
        lines.append([method, str(len(found)), *cells, f"{worst:.2f}", f"{balanced} of {len(found)}"])
    heads = ["method", "seeds", "E mu", "sd mu", "E abs tau", "sd abs tau", "P(tau < 0)", "density at 0 / peak",
             "largest error, posterior sd", "both modes"]  # fmt: skip
    write(
        "eight_schools",
        header("Eight schools with an implicit posterior", "make bench-adversarial", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"Model, data and priors of AVB's experiment, https://arxiv.org/abs/1701.04722: tau may be negative, so that "
        f"its posterior has two modes that mirror each other. AVB takes {STEPS:,} steps of {BATCH} particles, three of "
        f"the critic for each, with adaptive contrast by the moments of {CONTRAST} draws. The exact figures are by "
        f"quadrature over mu and tau. The largest error is that of the four moments, of their mean over seeds, in "
        f"posterior standard deviations; both modes: in how many seeds 25 to 75% of the draws have tau < 0. "
        f"Mean ± standard error over seeds.",
        table(heads, lines),
    )  # fmt: skip


def draw_figure() -> None:
    """Show the posterior of tau, and of mu and tau, by each method."""
    mu, tau, p = exact()
    names = [name for name in METHODS if (DRAWN / f"{name}.npz").exists()]
    figure = Figure(figsize=(3.2 * len(names), 5.6), layout="constrained")
    for i, name in enumerate(names):
        with np.load(DRAWN / f"{name}.npz", allow_pickle=False) as found:
            draws = {key: found[key] for key in ("mu", "tau")}
        above = figure.add_subplot(2, len(names), 1 + i, title=name, xlim=(-2.5, 2.5))
        above.hist(draws["tau"], bins=80, range=(-2.5, 2.5), density=True, color="tab:blue", alpha=0.5)
        above.plot(tau, p.sum(0) / (tau[1] - tau[0]), color="black", linewidth=1)
        below = figure.add_subplot(2, len(names), 1 + len(names) + i, xlabel="tau", xlim=(-2.5, 2.5), ylim=(-0.5, 2))
        below.scatter(draws["tau"][:4000], draws["mu"][:4000], s=1, alpha=0.3, color="tab:blue", rasterized=True)
        below.contour(tau, mu, p, levels=4, colors="black", linewidths=0.7)
        if i == 0:
            above.set_ylabel("density of tau")
            below.set_ylabel("mu")
    figure.savefig(Path(__file__).parent.parent / "docs" / "eight_schools.png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for task in missing(ROWS, seed=range(options.seeds), method=options.methods):
        append_row(ROWS, measure(**task))
    write_table()
    draw_figure()


if __name__ == "__main__":
    main()
