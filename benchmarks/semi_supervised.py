"""Semi-supervised learning: digits by few labels, with and without what the labelled bound lacks.

Every (part, setting, seed) appends a line to ``results/semi_supervised.jsonl``; what is there is not run again.

Run: ``python benchmarks/semi_supervised.py [--parts digits mnist] [--settings NAME ...] [--seeds 3]
[--device cpu]``.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
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
from torch import Tensor
from torch.optim import Adam

from pyrogen.data import Dataset, digits, known_labels, mnist_10k
from pyrogen.evaluation import Estimate, accuracy, guide_accuracy
from pyrogen.inference import ELBO, MaximumLikelihood, Objective, train
from pyrogen.models import classifier, m2, vae
from pyrogen.parameters import modules_of
from pyrogen.sites import Program
from pyrogen.stacking import encoded

ROWS = RESULTS / "semi_supervised.jsonl"
Judge = Callable[[list[dict[str, Tensor]]], Estimate]
CLASSIFIER_STEPS, CLASSIFIER_BATCH, RATE = 500, 50, 1e-3


@dataclass(frozen=True)
class Part:
    """One of the data sets, and how long it is learned.

    Attributes:
        data: loads it, with few labels, by a seed.
        what: says what it is.
        labels: how many are known.
        hidden: the widths of all networks.
        latent: the number of styles.
        codes: the number of M1's latent variables.
        rate: of M2's Adam.
        class_weight: of a label; that of the paper, 0.1 N / labels, is too small for so few steps.
        steps: of M2.
        m1_steps: of the VAE.
        chosen: by what trials settings were chosen.
    """

    data: Callable[..., Dataset]
    what: str
    labels: int
    hidden: tuple[int, ...]
    latent: int
    codes: int
    rate: float
    class_weight: float
    steps: int
    m1_steps: int
    chosen: str
    batch: int = 100


PARTS = {
    "digits": Part(
        digits, "The digits of scikit-learn, 1,437 of 8 x 8 pixels to learn from", 50, (128,), 10, 10, 3e-3, 20.0,
        2000, 2000, "seed 0",
    ),
    "mnist": Part(
        mnist_10k, "8,000 of MNIST's digits to learn from", 100, (500,), 50, 32, 3e-3, 46.0, 12_000, 1500,
        "the validation digits of a seed that is not in the table", 500,
    ),
}  # fmt: skip


def fit(
    objective: Objective,
    programs: tuple[Program, Program | None],
    batches: Iterable[Any],
    rate: float,
    steps: int,
    device: str,
) -> None:
    """Fit on a device; the programs are on the CPU before and after."""
    modules = modules_of(*programs).values()
    for module in modules:
        module.to(device)
    adam = partial(Adam, lr=rate)
    for _ in train(objective, *programs, batches, adam, num_steps=steps, validate=False, compile=True):
        pass
    for module in modules:
        module.cpu()


def by_classifier(part: Part, data: Dataset, device: str) -> Judge:
    """Train the classifier of M2 on what has labels, and nothing else."""
    labelled = known_labels(data)
    programs = classifier(labelled.spec, hidden=part.hidden)
    fit(MaximumLikelihood(), programs, labelled.batches(CLASSIFIER_BATCH), RATE, CLASSIFIER_STEPS, device)
    return lambda batches: accuracy(programs[0], batches)


def by_m2(part: Part, data: Dataset, device: str, **settings: Any) -> Judge:
    programs = m2(
        data.spec, **{"latent": part.latent, "hidden": part.hidden, "class_weight": part.class_weight} | settings
    )
    batches = data.batches(part.batch, drop_last=True)
    fit(ELBO(), programs, batches, part.rate, part.steps, device)
    return lambda batches: guide_accuracy(programs[1], batches)


def with_codes(part: Part, data: Dataset, device: str) -> Dataset:
    """Return data as the latents of a VAE that has seen no label."""
    programs = vae(data.spec, latent=part.codes, hidden=(*part.hidden, *part.hidden))
    batches = data.batches(part.batch, only=["x"], drop_last=True)
    fit(ELBO(), programs, batches, part.rate, part.m1_steps, device)
    return encoded(programs[1], data)


SETTINGS: dict[str, dict[str, Any]] = {
    "classifier": {},
    "M2, drawn labels, no class term": {"missing": "drawn", "class_weight": 0.0},
    "M2, drawn labels": {"missing": "drawn"},
    "M2, no class term": {"class_weight": 0.0},
    "M2": {},
    "M1 + classifier": {},
    "M1 + M2": {},
}
"""What is set besides the part's settings."""


def measure(part: Part, setting: str, seed: int, device: str) -> dict[str, Any]:
    """Learn from few labels, and count how often the classifier is right on held-out digits."""
    data = part.data(pixels="dynamic-binary", labels=part.labels, seed=seed)
    pyro.set_rng_seed(seed)
    if setting.startswith("M1"):
        data = with_codes(part, data, device)
    learn = by_classifier if setting.endswith("classifier") else by_m2
    held_out = [data.eval_columns(split) for split in ("validation", "test")]
    return {"accuracy": 100 * learn(part, data, device, **SETTINGS[setting])(held_out).value}


def table_of(name: str) -> str:
    lines = []
    for setting in SETTINGS:
        found = [row for row in read_rows(ROWS) if (row["part"], row["setting"]) == (name, setting)]
        if found:
            lines.append([setting, str(len(found)), mean_cell([row["accuracy"] for row in found], 1), devices(found)])
    return table(["", "seeds", "right, %", "fitted on"], lines)


def section(name: str) -> str:
    part = PARTS[name]
    has_codes = any(row["part"] == name and row["setting"].startswith("M1") for row in read_rows(ROWS))
    codes = f"M1: a VAE of {part.codes} latent variables, {part.m1_steps:,} steps. " if has_codes else ""
    return (
        f"## {name}\n\n{part.what}, binarised anew in each batch, of which {part.labels} have labels, as many of each "
        f"class. {part.steps:,} steps of {part.batch}, Adam at {part.rate:g}; hidden layers of "
        f"{', '.join(map(str, part.hidden))}, {part.latent} styles; a label weighs {part.class_weight:g}, more "
        f"than the paper's 0.1 N / labels, as {part.chosen} had it better. {codes}The seed also draws the split and "
        f"which labels are known. Chance is 10%.\n\n{table_of(name)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="NAME")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda, to fit on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.parts:
        for task in missing(ROWS, part=[name], seed=range(options.seeds), setting=options.settings):
            figures = measure(PARTS[name], task["setting"], task["seed"], options.device)
            append_row(ROWS, task | {"device": device_name(options.device)} | figures)
    write(
        "semi_supervised",
        header(
            "Semi-supervised learning", "make bench-semi-supervised", 1, versions("torch", "pyro-ppl", "pyrogen-ppl")
        ),
        f"After Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), "
        f"https://arxiv.org/abs/1406.5298: how often the most probable label of q(y | x) is right on held-out digits, "
        f"validation and test together; mean ± standard error over seeds. The classifier is M2's own network, trained "
        f"on the labels alone for {CLASSIFIER_STEPS} steps.",
        *(section(name) for name in PARTS if any(row["part"] == name for row in read_rows(ROWS))),
    )


if __name__ == "__main__":
    main()
