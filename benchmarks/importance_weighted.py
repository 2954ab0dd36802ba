"""Importance-weighted autoencoders of digits: a better bound, more active units, and a worse ELBO.

Every (draws, seed) appends a line to ``results/importance_weighted.jsonl``; what is there is not run again. ``--table``
writes the table of what is there.

Run: ``python benchmarks/importance_weighted.py [--models 1 5 50] [--seeds 0 1 2] [--device cpu]``.
"""

import argparse
import time
from functools import partial
from typing import Any

import pyro
import torch
from annealed_importance import prior_of
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
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR

from pyrogen.data import Batches, Dataset, mnist_10k
from pyrogen.evaluation import active_units, ais, bdmc, elbo, encode, iwae
from pyrogen.inference import IWAE, train
from pyrogen.models import VAE
from pyrogen.models.encoder import GaussianEncoder
from pyrogen.models.likelihood import Bernoulli
from pyrogen.nn import MLP

ROWS = RESULTS / "importance_weighted.jsonl"
DRAWS = (1, 5, 50)
LATENT, HIDDEN, BATCH = 50, (200, 200), 20
STAGES = 5
RATE, BETAS, EPSILON = 1e-3, (0.9, 0.999), 1e-4
BOUND, OF_ELBO, OF_CODES = 5000, 100, 100
TEMPERATURES, CHAINS, LEAPFROG, JUDGED = 500, 16, 10, 100


def autoencoder(data: Dataset) -> tuple[VAE, GaussianEncoder]:
    """Make the paper's networks with one stochastic layer; before training, all pixels are as likely as they are."""
    spec = data.spec
    encoder = nn.Sequential(nn.Flatten(-3), MLP(spec.num_dims, 2 * LATENT, HIDDEN, nn.Tanh))
    decoder = MLP(LATENT, spec.num_dims, HIDDEN, nn.Tanh)
    shares = data.eval_columns("train")["x"].mean(0).flatten()
    with torch.no_grad():
        decoder[-1].bias.copy_(shares.clamp(1e-3, 1 - 1e-3).logit())
    return VAE(decoder, Bernoulli(spec), LATENT), GaussianEncoder(encoder, spec)


def passes(stages: int) -> list[int]:
    """Return after how many passes over the data each stage ends: they take 1, 3, 9, ... of them."""
    return [sum(3**i for i in range(stage + 1)) for stage in range(stages)]


def measure(draws: int, seed: int, stages: int, temperatures: int, device: str) -> dict[str, Any]:
    """Train with one seed, and measure test digits."""
    data = mnist_10k(pixels="dynamic-binary")
    begin = time.perf_counter()
    pyro.set_rng_seed(seed)
    model, guide = (program.to(device) for program in autoencoder(data))
    batches = data.batches(BATCH, only=["x"], drop_last=True)
    ends = [len(batches) * count for count in passes(stages)]
    training = train(
        IWAE(draws), model, guide, batches, partial(Adam, lr=RATE, betas=BETAS, eps=EPSILON), num_steps=ends[-1],
        scheduler=partial(MultiStepLR, milestones=ends[:-1], gamma=10 ** (-1 / 7)), validate=False, compile=True,
    )  # fmt: skip
    for _ in training:
        pass
    pyro.set_rng_seed(seed)
    test = Batches(data.eval_columns("test"), 250, shuffle=False, only=["x"])
    few = [{"x": data.eval_columns("test")["x"][:JUDGED]}]
    settings = {"num_steps": temperatures, "num_chains": CHAINS, "num_leapfrog": LEAPFROG}
    prior = prior_of(model)
    figures = {
        "elbo": elbo(model, guide, test, OF_ELBO).value,
        "iwae": iwae(model, guide, test, BOUND).value,
        "iwae_of_few": iwae(model, guide, few, BOUND).value,
        "ais": ais(model, few, prior, **settings).value,
        "gap": bdmc(model, few, prior, **settings).gap.value,
        "active": active_units(encode(guide, test, OF_CODES)),
    }
    return figures | {"seconds": time.perf_counter() - begin, "device": device_name(device)}


PUBLISHED = {1: "-86.76", 5: "-85.54", 50: "-84.78"}
COLUMNS = {
    "elbo": ("ELBO", 2),
    "iwae": (f"IWAE-{BOUND}", 2),
    "iwae_of_few": (f"IWAE-{BOUND}, first {JUDGED}", 2),
    "ais": (f"AIS, first {JUDGED}", 2),
    "gap": ("gap, simulated", 2),
    "active": ("active units", 1),
}


def write_table(stages: int, temperatures: int) -> None:
    """Write what all rows of a schedule and a length of the path say."""
    rows = [row for row in read_rows(ROWS) if (row["stages"], row["temperatures"]) == (stages, temperatures)]
    lines = []
    for draws in DRAWS:
        found = [row for row in rows if row["draws"] == draws]
        if found:
            cells = [mean_cell([row[key] for row in found], places) for key, (_, places) in COLUMNS.items()]
            lines.append([str(draws), str(len(found)), *cells, PUBLISHED[draws]])
    write(
        "importance_weighted",
        header("Importance-weighted autoencoders of digits", "make bench-importance-weighted", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"After Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519, on 8,000 of "
        f"MNIST's digits, binarised anew in each batch: 784-{HIDDEN[0]}-{HIDDEN[1]}-{LATENT} and back, tanh, one "
        f"stochastic layer; batches of {BATCH}, Adam with betas {BETAS} and epsilon {EPSILON:g}, rate {RATE:g} times "
        f"10^(-i/7) for 3^i passes over the data, i from 0 to {stages - 1}, where the paper goes on to 7. As in the "
        f"authors' code, the decoder begins with the shares of each pixel. The guide's standard deviation is "
        f"2 / (1 + e^-a), not e^a. Nats per digit, of 1,000 test digits, binarised once; mean ± "
        f"standard error over seeds. Run on: {devices(rows)}.",
        f"- ELBO: one draw in the bound, averaged over {OF_ELBO}. IWAE-{BOUND}: {BOUND:,} draws, also of the first "
        f"{JUDGED} digits, whose AIS figure beside it knows nothing of the guide: from the prior, {CHAINS} chains, "
        f"{temperatures:,} temperatures, Hamiltonian moves of {LEAPFROG} steps. gap: between the bounds of "
        f"bidirectional Monte Carlo, of {JUDGED} digits that the model simulates.\n"
        f"- active units: of {LATENT}, whose posterior mean has a variance above .01 over test digits.\n"
        f"- published: the same bound of all of MNIST, after the whole schedule.",
        table(["draws", "seeds", *(title for title, _ in COLUMNS.values()), "IWAE-5000, published"], lines),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", type=int, default=list(DRAWS), choices=DRAWS, metavar="DRAWS")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--stages", type=int, default=STAGES, help="of the schedule: each is three times the last")
    parser.add_argument("--temperatures", type=int, default=TEMPERATURES)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--table", action="store_true", help="write the table of what has been measured, and end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fixed = {"stages": [options.stages], "temperatures": [options.temperatures]}
    for task in missing(ROWS, **fixed, seed=options.seeds, draws=options.models):
        if options.table:
            break
        append_row(ROWS, task | measure(**task, device=options.device))
    write_table(options.stages, options.temperatures)


if __name__ == "__main__":
    main()
