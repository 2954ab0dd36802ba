"""VAEs, GANs and moment matching by one decoder: what annealed importance sampling says of them, and kernels do.

On the Quantitative Analysis of Decoder-Based Generative Models, in small. Every (data, model, seed) appends a line to
``results/annealed_importance.jsonl``; what is there is not run again. ``--table`` writes the table of what is there.

Run: ``python benchmarks/annealed_importance.py [--data mnist] [--models NAME ...] [--seeds 0 1 2] [--device cpu]``.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from report import (
    RESULTS,
    append_row,
    device_name,
    devices,
    header,
    mean_cell,
    missing,
    read_rows,
    table,
    versions,
    write,
)
from torch import Tensor, nn
from torch.optim import Adam

from pyrogen.data import Dataset, digits, mnist_10k
from pyrogen.errors import MisrankingWarning
from pyrogen.evaluation import ais, bdmc, parzen_log_likelihood, with_noise
from pyrogen.evaluation.annealing import anneal, log_mean_exp
from pyrogen.evaluation.hamiltonian import Hamiltonian, tuned
from pyrogen.evaluation.latents import Latents, State
from pyrogen.evaluation.likelihood import evaluating
from pyrogen.inference import ELBO, GAN, R1, Objective, implicit_entries, train
from pyrogen.inference.critics import Scaling, critic_for
from pyrogen.models import VAE, Generator
from pyrogen.models.encoder import GaussianEncoder
from pyrogen.models.likelihood import Likelihood
from pyrogen.nn import MLP
from pyrogen.sites import Program
from pyrogen.spec import DataSpec, unscaled

ROWS = RESULTS / "annealed_importance.jsonl"
DATA: dict[str, Callable[..., Dataset]] = {"mnist": mnist_10k, "digits": digits}
HIDDEN = {"mnist": (64, 256, 256, 1024), "digits": (64, 128)}
OF_OTHERS = {"mnist": (512, 256), "digits": (128, 128)}
EMA = 0.995
TEMPERATURES, CHAINS, LEAPFROG = 500, 16, 10
JUDGED, DRAWS = 100, 10_000
LEAST, FIRST = 0.04, 1e-5
"""The smallest noise that is looked at, in the units of the data, whose pixels are from 0 to 1, and the first inverse
temperature of its path."""

Parts = tuple[Program, Program | None, Objective]


class Sphere(Likelihood):
    """Normal noise around the mean, with one learned scale."""

    kinds = ("dequantized",)

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def distribution(self, features: Tensor) -> dist.Normal:
        return dist.Normal(unscaled(self._parts(features)[0], self.spec), self.log_scale.exp())


# Fits: each trains the decoder of a generator


class Recipe(NamedTuple):
    """How a decoder is trained.

    Attributes:
        make: of a generator, programs and objective, whose other networks have layers of some widths.
        steps: rounds of one step for each player.
        batch: data in a batch.
        rate: Adam's.
        betas: Adam's.
    """

    make: Callable[[Generator, Dataset, Sequence[int]], Parts]
    steps: int
    batch: int
    rate: float
    betas: tuple[float, float]


def by_elbo(model: Generator, data: Dataset, hidden: Sequence[int]) -> Parts:
    latent = len(model.zero)
    encoder = nn.Sequential(nn.Flatten(-3), MLP(data.spec.num_dims, 2 * latent, hidden))
    return VAE(model.network, Sphere(data.spec), latent), GaussianEncoder(encoder, data.spec), ELBO()


def by_critic(model: Generator, data: Dataset, hidden: Sequence[int]) -> Parts:
    critic = critic_for(model, False, hidden, None, "none")
    return model, None, GAN(critic, penalties=[R1(1.0)], transform=Scaling(data.spec))


def by_moments(model: Generator, data: Dataset, hidden: Sequence[int]) -> Parts:
    return model, None, implicit_entries.mmd(model, None, {"x": data.eval_columns("train")["x"][:1000]})


RECIPES = {
    "VAE": Recipe(by_elbo, 8000, 100, 1e-3, (0.9, 0.999)),
    "GAN": Recipe(by_critic, 15_000, 100, 3e-4, (0.5, 0.99)),
    "GMMN": Recipe(by_moments, 6000, 1000, 1e-3, (0.9, 0.999)),
}
LATENTS = (10, 50)
MODELS = {f"{kind}-{latent}": (kind, latent) for latent in LATENTS for kind in RECIPES}


def fitted(part: str, name: str, data: Dataset, seed: int, share: float, device: str) -> Generator:
    """Train with one seed, and return the generator of the averaged decoder's means."""
    kind, latent = MODELS[name]
    how = RECIPES[kind]
    pyro.set_rng_seed(seed)
    network = nn.Sequential(MLP(latent, data.spec.num_dims, HIDDEN[part]), nn.Tanh())
    generator = Generator(network, data.spec, latent)
    model, guide, objective = how.make(generator, data, OF_OTHERS[part])
    for program in (generator, model, guide, objective):
        if isinstance(program, nn.Module):
            program.to(device)
    has_critic = any(p.requires_grad for p in objective.parameters())
    adam = partial(Adam, lr=how.rate, betas=how.betas)
    training = train(
        objective, model, guide, data.batches(how.batch, only=["x"], drop_last=True), adam,
        adam if has_critic else None, num_steps=max(1, round(share * how.steps)), ema=EMA, validate=False,
        compile=True,
    )  # fmt: skip
    for _ in training:
        pass
    with training.averaged():
        average = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(average)
    return generator


# Figures


def prior_of(model: Generator | VAE) -> Program:
    """Return the model's prior, without the decoder that the whole model runs."""

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(model.zero, 1.0).to_event(1))

    return prior


class Recorded:
    """A path that keeps the ratio of its densities at each step, and the share of moves that are accepted."""

    def __init__(self, path: Hamiltonian) -> None:
        self.path = path
        self.ratios: list[Tensor] = []
        self.accepted: list[Tensor] = []

    def log_ratio(self, state: State) -> Tensor:
        self.ratios.append(self.path.log_ratio(state).double())
        return self.ratios[-1]

    def move(self, state: State, beta: float, step: int) -> State:
        state = self.path.move(state, beta, step)
        assert self.path.accepted is not None
        self.accepted.append(self.path.accepted.double().mean())
        return state

    def select(self, state: State, chains: Tensor) -> State:
        return self.path.select(state, chains)


def best_noise(model: Generator, x: Tensor, temperatures: int) -> dict[str, float]:
    r"""Find the noise by which data are likeliest, from one path.

    A likelihood to the power of an inverse temperature is that of a larger noise, but for a factor,

    .. math::
        \mathcal{N}(x; f, \sigma^2 I)^\beta
        \propto \mathcal{N}\left(x; f, \tfrac{\sigma^2}{\beta} I\right),

    so that what the weights come to on the way gives the evidence for each :math:`\sigma / \sqrt\beta`.
    """
    betas = [0.0, *torch.logspace(math.log10(FIRST), 0, temperatures, dtype=torch.float64).tolist()]
    noisy, prior = with_noise(model, LEAST), prior_of(model)
    with evaluating(noisy, prior):
        latents = Latents(noisy, prior, {"x": x}, CHAINS)
        path = Recorded(tuned(latents, betas, LEAPFROG))
        anneal(path, latents.draw(), betas)
    on_way = torch.tensor(betas, dtype=torch.float64, device=x.device)
    log_w = (on_way.diff()[:, None, None] * torch.stack(path.ratios)).cumsum(0)
    variances = LEAST**2 / on_way[1:]
    factors = on_way[1:] * math.log(2 * math.pi * LEAST**2) - (2 * math.pi * variances).log()
    found = log_mean_exp(log_w.transpose(0, 1)).mean(1) + x[0].numel() / 2 * factors
    best = int(found.argmax())
    if best == len(found) - 1:
        raise ValueError(f"data are likeliest by the least noise, {LEAST}: lower it")
    return {
        "noise": float(variances[best].sqrt()),
        "validation": float(found[best]),
        "acceptance": float(torch.stack(path.accepted).mean()),
    }


def by_kernels(model: Generator, x: Tensor, validation: Tensor) -> dict[str, float]:
    """Estimate the log-likelihood by normal kernels at draws, whose width is the best of validation data."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MisrankingWarning)
        found = parzen_log_likelihood(model(size=DRAWS), x, validation)
    return {"kernels": found.log_likelihood.value, "bandwidth": found.bandwidth}


def measure(part: str, name: str, seed: int, temperatures: int, share: float, device: str) -> dict[str, Any]:
    """Train with one seed, choose the noise on validation digits, and measure test digits."""
    data = DATA[part](pixels="dequantized")
    begin = time.perf_counter()
    model = fitted(part, name, data, seed, share, device)
    pyro.set_rng_seed(seed)
    validation, test = (data.eval_columns(split)["x"].to(device) for split in ("validation", "test"))
    figures = best_noise(model, validation[:JUDGED], temperatures)
    noisy, prior = with_noise(model, figures["noise"]), prior_of(model)
    batches = [{"x": test[:JUDGED]}]
    settings = {"num_steps": temperatures, "num_chains": CHAINS, "num_leapfrog": LEAPFROG}
    evidence = ais(noisy, batches, prior, **settings)
    between = bdmc(noisy, batches, prior, **settings)
    figures |= {
        "ais": evidence.value,
        "ais_stderr": evidence.stderr,
        "lower": between.lower.value,
        "upper": between.upper.value,
    }
    figures |= {"gap": between.gap.value} | by_kernels(model, test[:JUDGED], validation)
    return figures | {"seconds": time.perf_counter() - begin, "device": device_name(device)}


# The page

PUBLISHED = {
    "VAE-10": (705.4, 408.7),
    "GAN-10": (328.8, 259.7),
    "GMMN-10": (346.7, 262.7),
    "VAE-50": (991.4, 351.2),
    "GAN-50": (627.3, 300.3),
    "GMMN-50": (593.5, 277.2),
}
COLUMNS = {
    "noise": ("noise", 3),
    "ais": ("AIS", 0),
    "gap": ("gap, simulated", 2),
    "acceptance": ("accepted", 2),
    "kernels": ("kernels", 0),
    "bandwidth": ("width", 3),
}


def widths(hidden: Sequence[int]) -> str:
    return ", ".join(map(str, hidden[:-1])) + f" and {hidden[-1]}"


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = []
    for name in MODELS:
        found = [row for row in rows if row["model"] == name]
        if found:
            cells = [mean_cell([row[key] for row in found], places) for key, (_, places) in COLUMNS.items()]
            lines.append([name, str(len(found)), *cells, *map(str, PUBLISHED[name])])
    head = ["model", "seeds", *(title for title, _ in COLUMNS.values()), "AIS, published", "kernels, published"]
    return table(head, lines)


def write_table(temperatures: int) -> None:
    """Write what all rows of a length of the path say."""
    rows = [row for row in read_rows(ROWS) if row["temperatures"] == temperatures and row["share"] == 1.0]
    parts = [(name, [row for row in rows if row["data"] == name]) for name in DATA]
    steps = ", ".join(f"{kind} {how.steps:,} of {how.batch:,} at {how.rate:g}" for kind, how in RECIPES.items())
    write(
        "annealed_importance",
        header("Decoders by annealed importance sampling, and by kernels", "make bench-annealed-importance", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"After On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017), "
        f"https://arxiv.org/abs/1611.04273, whose figures, of all of MNIST, are the last two columns. One decoder of "
        f"10 or 50 standard normal latents, by the ELBO, by an adversarial game (non-saturating, R1 penalty) and by "
        f"moment matching (MMD, kernels from a quarter of the median distance to four times that). Steps of Adam: "
        f"{steps}; parameters averaged at {EMA}. Digits are dequantised, from 0 to 1; densities are of them as they "
        f"are, in nats. Mean ± standard error over seeds of training; that over digits, which are the "
        f"same for all models, comes on top. Run on: {devices(rows)}.",
        f"- noise: the standard deviation of the normal noise around what the decoder makes, which is the likeliest of "
        f"{JUDGED} validation digits: one path from the prior, whose {temperatures:,} temperatures are a geometric "
        f"series, gives the evidence for all noise from {LEAST} on. The VAE's is chosen likewise, whatever it had in "
        f"training.\n"
        f"- AIS: of {JUDGED} test digits, from the prior, {CHAINS} chains, {temperatures:,} temperatures, Hamiltonian "
        f"moves of {LEAPFROG} steps, tuned and then frozen; accepted: the share of moves, in the choice of the noise.\n"
        f"- gap: between the bounds of bidirectional Monte Carlo, of {JUDGED} digits that the model simulates.\n"
        f"- kernels: of the same test digits by normal kernels at {DRAWS:,} draws; their width is chosen by all "
        f"validation digits.",
        *(f"## {name}\n\nHidden layers of {widths(HIDDEN[name])} units in the decoder, of {widths(OF_OTHERS[name])} in "
          f"the VAE's guide and in the GAN's critic.\n\n{table_of(found)}" for name, found in parts if found),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["mnist"], choices=list(DATA), metavar="NAME")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--temperatures", type=int, default=TEMPERATURES)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps, to try it out; not in the table")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--table", action="store_true", help="write the table of what has been measured, and end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fixed = {"temperatures": [options.temperatures], "share": [options.share]}
    for task in missing(ROWS, **fixed, data=options.data, seed=options.seeds, model=options.models):
        if options.table:
            break
        settings = {key: task[key] for key in ("seed", "temperatures", "share")}
        append_row(ROWS, task | measure(task["data"], task["model"], **settings, device=options.device))
    write_table(options.temperatures)


if __name__ == "__main__":
    main()
