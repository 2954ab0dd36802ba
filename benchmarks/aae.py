"""Adversarial autoencoders: two latents against their prior, and digits by 100 labels.

Every (part, setting, seed) appends a line to ``results/aae.jsonl``; what is there is not run again. Latents of the
last seed are shown in ``docs/latents.png``.

Run: ``python benchmarks/aae.py [--parts latents labels] [--seeds 3]``.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from safetensors.torch import load_file, save_file
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from pyrogen.data import Dataset, digits, mnist_10k
from pyrogen.discrepancy import RBF, RationalQuadratic, mmd2
from pyrogen.inference import AAE, ELBO, MMD, WAE, Objective, train
from pyrogen.models import VAE, vae
from pyrogen.nn import MLP
from pyrogen.sites import Program

ROWS = RESULTS / "aae.jsonl"
DRAWN = Path(__file__).parent.parent / "runs" / "aae"
CLASSES = 10
PIXELS, HIDDEN, STYLES = 784, (400, 400), 10
LABELS, BATCH = 100, 100
LABEL_WEIGHT = 100.0
STEPS = {"latents": 5000, "labels": 6000}
ALONE_STEPS, RATE = 500, 1e-3


class Scores(nn.Module):
    """A critic of latents alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.network = MLP(size, 1, (256, 256), lambda: nn.LeakyReLU(0.2))

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).squeeze(-1)


def fit(objective: Objective, model: Program, guide: Program, batches: Iterable[Any], steps: int) -> None:
    """Train both players at a rate that falls to a tenth."""
    has_critic = any(p.requires_grad for p in objective.parameters())
    adam = partial(Adam, lr=RATE, betas=(0.5, 0.99))
    falling = partial(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=steps)
    training = train(
        objective, model, guide, batches, adam, adam if has_critic else None, num_steps=steps, scheduler=falling,
        critic_scheduler=falling if has_critic else None, validate=False, compile=True,
    )  # fmt: skip
    for _ in training:
        pass


# Two latents against their prior


class Petals(VAE):
    """A VAE whose prior is ten normal distributions around the origin, each longer than it is wide."""

    def prior(self) -> TorchDistribution:
        angle = torch.arange(CLASSES) * 2 * math.pi / CLASSES
        along = torch.stack([angle.cos(), angle.sin()], 1)
        across = torch.stack([-angle.sin(), angle.cos()], 1)
        scale = torch.stack([0.5 * along, 0.12 * across], 2)
        components = dist.MultivariateNormal(2 * along, scale @ scale.mT)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(CLASSES)), components)


class Latents(NamedTuple):
    """How two latents are learned.

    Attributes:
        objective: makes the objective.
        encoder: of the guide.
        petals: whether the prior is :class:`Petals`; a standard normal if not.
    """

    objective: Callable[[], Objective]
    encoder: str
    petals: bool = False


def adversarial() -> AAE:
    return AAE(Scores(2), 10.0)


LATENTS = {
    "VAE": Latents(ELBO, "gaussian"),
    "AAE, normal": Latents(adversarial, "gaussian"),
    "AAE, deterministic": Latents(adversarial, "deterministic"),
    "AAE, implicit": Latents(adversarial, "implicit"),
    "WAE, deterministic": Latents(lambda: WAE(MMD(RationalQuadratic([0.5, 1.0, 2.0])), 100.0), "deterministic"),
    "AAE, deterministic, petals": Latents(adversarial, "deterministic", petals=True),
}


def measure_latents(setting: str, seed: int) -> dict[str, float]:
    """Fit digits of 8 x 8 pixels, and compare codes of held-out ones with the prior."""
    how, data = LATENTS[setting], digits()
    pyro.set_rng_seed(seed)
    model, guide = vae(data.spec, latent=2, hidden=(256, 256), encoder=how.encoder)  # type: ignore[arg-type]
    if how.petals:
        model = Petals(model.decoder, model.likelihood, 2)
    fit(how.objective(), model, guide, data.batches(BATCH, only=["x"], drop_last=True), STEPS["latents"])
    with torch.no_grad():
        codes = {name: guide(data.eval_columns(name)["x"]) for name in ("train", "validation", "test")}
        held_out = torch.cat([codes["validation"], codes["test"]])
        drawn = model.prior().sample((5000,))
        distance = float(mmd2(held_out, drawn, RBF([0.25, 0.5, 1.0])))
    labels = {name: data.eval_columns(name)["y"] for name in codes}
    known = KNeighborsClassifier(10).fit(codes["train"].numpy(), labels["train"].numpy())
    DRAWN.mkdir(parents=True, exist_ok=True)
    kept = {"codes": held_out, "labels": torch.cat([labels["validation"], labels["test"]]), "prior": drawn[:1000]}
    save_file({name: value.contiguous() for name, value in kept.items()}, DRAWN / f"{setting}.safetensors")
    return {"mmd2": distance, "accuracy": 100 * known.score(codes["test"].numpy(), labels["test"].numpy())}


# Digits by few labels


class Decoder(PyroModule):
    """A label, as a corner of the simplex, and a style make a binary image."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(CLASSES + STYLES, PIXELS, HIDDEN)
        self.register_buffer("even", torch.ones(CLASSES))
        self.register_buffer("zero", torch.zeros(STYLES))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(self.even))
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            logits = self.network(torch.cat([y, z], -1))
            return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Encoder(PyroModule):
    """An image has a point on the simplex and a style; where its label is known, not -1, that is observed."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(PIXELS, CLASSES + STYLES, HIDDEN)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of labels, and styles."""
        logits, z = self.network(x).split([CLASSES, STYLES], -1)
        return logits, z

    def forward(self, x: Tensor, labels: Tensor) -> None:
        logits, z = self.split(x)
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=labels >= 0), poutine.scale(scale=LABEL_WEIGHT):
                pyro.sample("labels", dist.Categorical(logits=logits), obs=labels.clamp(min=0))
            pyro.sample("y", dist.Delta(logits.softmax(-1)).to_event(1))
            pyro.sample("z", dist.Delta(z).to_event(1))


class Partly:
    """Batches of images without labels, each beside all the images that have some."""

    def __init__(self, data: Dataset, labelled: Tensor) -> None:
        self.batches = data.batches(BATCH, only=["x"], drop_last=True)
        columns = data.split("train")
        self.known, self.labels = columns["x"][labelled], columns["y"][labelled]
        self.transform = data.transform

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            x = torch.cat([batch["x"], self.transform(self.known)]).flatten(1)
            yield x, torch.cat([torch.full((len(batch["x"]),), -1), self.labels])


WEIGHTS = {"classifier alone": None, "AAE, weight 20": 20.0, "AAE, weight 100": 100.0}


def fit_labels(weight: float | None, data: Dataset, labelled: Tensor) -> Encoder:
    """Train an AAE whose critics have a weight; without one, the encoder alone, on what has labels."""
    guide = Encoder()
    batches = Partly(data, labelled)
    if weight is not None:
        critics = {"y": Scores(CLASSES), "z": Scores(STYLES)}
        fit(AAE(critics, weight, covariates=()), Decoder(), guide, batches, STEPS["labels"])
        return guide
    optimizer = Adam(guide.parameters(), RATE)
    for _ in range(ALONE_STEPS):
        optimizer.zero_grad()
        cross_entropy(guide.split(batches.transform(batches.known).flatten(1))[0], batches.labels).backward()
        optimizer.step()
    return guide


def measure_labels(setting: str, seed: int) -> dict[str, float]:
    """Learn from ten labels of each digit; count errors on test images."""
    data = mnist_10k(pixels="dynamic-binary")
    pyro.set_rng_seed(seed)
    y = data.split("train")["y"]
    order = torch.randperm(len(y))
    labelled = torch.cat([order[y[order] == k][: LABELS // CLASSES] for k in range(CLASSES)])
    guide = fit_labels(WEIGHTS[setting], data, labelled)
    with torch.no_grad():
        errors = {
            split: float((guide.split(columns["x"].flatten(1))[0].argmax(1) != columns["y"]).double().mean())
            for split in ("validation", "test")
            for columns in [data.eval_columns(split)]
        }
    return {f"{split}_error": 100 * error for split, error in errors.items()}


# The page


class Part(NamedTuple):
    """One of the experiments.

    Attributes:
        settings: their names.
        measure: from a setting and a seed to figures.
        columns: what the figures are called, and how many digits they get.
    """

    settings: list[str]
    measure: Callable[[str, int], dict[str, float]]
    columns: dict[str, tuple[str, int]]


PARTS = {
    "latents": Part(list(LATENTS), measure_latents, {"mmd2": ("MMD²", 4), "accuracy": ("neighbours right, %", 1)}),
    "labels": Part(list(WEIGHTS), measure_labels, {"test_error": ("error, %", 1)}),
}


def draw_figure() -> None:
    """Show held-out codes over draws of the prior."""
    names = [name for name in LATENTS if (DRAWN / f"{name}.safetensors").exists()]
    if not names:
        return
    figure = Figure(figsize=(9, 6.3), layout="constrained")
    for i, name in enumerate(names):
        kept = load_file(DRAWN / f"{name}.safetensors")
        axes = figure.add_subplot(2, 3, 1 + i, xlim=(-3.8, 3.8), ylim=(-3.8, 3.8), aspect="equal", xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
        axes.scatter(*kept["prior"].T, s=3, color="0.85")
        axes.scatter(*kept["codes"].T, s=6, c=kept["labels"], cmap="tab10")
    figure.savefig(Path(__file__).parent.parent / "docs" / "latents.png", dpi=100)


def table_of(name: str) -> str:
    part, lines = PARTS[name], []
    for setting in part.settings:
        found = [row for row in read_rows(ROWS) if (row["part"], row["setting"]) == (name, setting)]
        if found:
            cells = [mean_cell([row[key] for row in found], digits) for key, (_, digits) in part.columns.items()]
            lines.append([setting, str(len(found)), *cells, mean_cell([row["seconds"] for row in found], 0)])
    return table(["", "seeds", *(title for title, _ in part.columns.values()), "seconds"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.parts:
        part = PARTS[name]
        for task in missing(ROWS, part=[name], seed=range(options.seeds), setting=part.settings):
            start = time.perf_counter()
            figures = part.measure(task["setting"], task["seed"])
            append_row(ROWS, task | figures | {"seconds": time.perf_counter() - start})
    draw_figure()
    write(
        "aae",
        header("Adversarial autoencoders", "make bench-adversarial", 1, versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"After Adversarial Autoencoders (Makhzani et al., 2016), https://arxiv.org/abs/1511.05644. Adam at {RATE:g}, "
        f"falling to a tenth, betas (.5, .99), batches of {BATCH}, a step of each player in a round, critics of two "
        f"layers of 256. Mean ± standard error over seeds.",
        f"## Two latents against their prior\n\nThe digits of scikit-learn, 8 x 8 pixels, {STEPS['latents']:,} rounds; "
        f"critics weigh 10 for each datum, WAE's discrepancy 100. MMD² between codes of held-out digits and draws of "
        f"the prior, with normal kernels of widths .25, .5 and 1, unbiased: 0 where they agree. Share of test digits "
        f"whose label is that of most of 10 nearest training codes; chance is 10%. Petals: a prior of ten normal "
        f"distributions. Pictures: `docs/latents.png`.",
        table_of("latents"),
        f"## Digits by {LABELS} labels\n\n8,000 of MNIST's digits, binarised anew in each batch, "
        f"{STEPS['labels']:,} rounds of {BATCH} images without labels beside the {LABELS} with labels, ten of each "
        f"digit, whose labels weigh {LABEL_WEIGHT:g}; a label and {STYLES} styles, both without noise, two layers of "
        f"{HIDDEN[0]}. The paper has 1.90% with 60,000 images, wider networks and longer training. The classifier is "
        f"the same encoder, trained on the labels alone.",
        table_of("labels"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
