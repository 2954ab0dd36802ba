"""DCGAN's "glasses" experiment on shapes whose attributes are known: square with a hole - square + disc = ring?

Each (model, seed) appends a line to ``results/attribute_arithmetic.jsonl``; what is there is not run again. The first
seed's sums are shown in ``docs/arithmetic.png``.

Run: ``python benchmarks/attribute_arithmetic.py [--seeds 3]``.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from pyro import poutine
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor
from torch.optim import Adam

from pyrogen.data import Dataset, shapes
from pyrogen.evaluation import attribute_arithmetic
from pyrogen.evaluation.arithmetic import sums
from pyrogen.exhibits import decode
from pyrogen.inference import ELBO, MaximumLikelihood, Objective, implicit_entries, train
from pyrogen.models import classifier, dcgan, vae
from pyrogen.sites import Program
from pyrogen.spec import DataSpec

ROWS = RESULTS / "attribute_arithmetic.jsonl"
LATENT, CHANNELS, STEPS, PRIOR = 32, (32, 64), 2000, 5000


def adversarial(spec: DataSpec) -> tuple[Program, Program | None, Objective]:
    model, _ = dcgan(spec, latent=LATENT, channels=CHANNELS)
    return model, None, implicit_entries.gan(model, None, {})


def variational(spec: DataSpec) -> tuple[Program, Program | None, Objective]:
    model, guide = vae(
        spec, likelihood="discretized-logistic", latent=LATENT, network="convolutional", channels=CHANNELS
    )
    return model, guide, ELBO()


COLUMNS = {
    "chance": "chance",
    "of 1": "1 exemplar",
    "of 3": "3 exemplars",
    "kept": "outline",
    "added": "hole",
    "of 10": "10 exemplars",
}
MODELS = {"DCGAN, non-saturating + R1": adversarial, "VAE": variational}


def attributes_of(data: Dataset) -> Callable[[Tensor], Tensor]:
    """Train a classifier, and return what names an image's attributes: square or disc, hollow or solid."""
    torch.manual_seed(0)
    model, _ = classifier(data.spec, hidden=(128,))
    for _ in train(MaximumLikelihood(), model, None, data.batches(128), partial(Adam, lr=1e-3), epochs=5):
        pass

    def classify(x: Tensor) -> Tensor:
        with torch.no_grad():
            label = poutine.trace(model).get_trace(x.clamp(0, 255)).nodes["y"]["fn"].logits.argmax(1)
        return torch.stack([label // 2, label % 2], 1)

    test = data.eval_columns("test")
    accuracy = (classify(test["x"]) == torch.stack([test["y"] // 2, test["y"] % 2], 1)).double().mean()
    assert accuracy > 0.99, f"the classifier is right in {accuracy:.1%} only"
    return classify


def measure(name: str, seed: int, data: Dataset, classify: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Fit with one seed and add latent vectors."""
    torch.manual_seed(seed)
    model, guide, objective = MODELS[name](data.spec)
    adam = partial(Adam, lr=5e-4, betas=(0.9, 0.999) if guide else (0.5, 0.99))
    training = train(
        objective, model, guide, data.batches(64, only=["x"], drop_last=True), adam, None if guide else adam,
        num_steps=STEPS, ema=0.995, validate=False, compile=True,
    )  # fmt: skip
    for _ in training:
        pass
    torch.manual_seed(seed)
    with training.averaged(), torch.no_grad():
        for module in training.modules:
            module.eval()

        def generate(z: Tensor) -> Tensor:
            return decode(model, z) if guide else poutine.condition(model, data={"z": z})(size=len(z))

        z = torch.randn(PRIOR, LATENT)
        found = {n: attribute_arithmetic(generate, classify, z, exemplars=n) for n in (1, 3, 10)}
        if seed == 0 and not guide:
            draw_figure(generate, classify(generate(z)), z)
    figures = {f"of {n}": value.success.value for n, value in found.items()}
    of_three = {"kept": found[3].kept.value, "added": found[3].added.value, "chance": found[3].chance}
    return {"model": name, "seed": seed, "steps": STEPS} | figures | of_three


def draw_figure(generate: Callable[[Tensor], Tensor], attributes: Tensor, z: Tensor) -> None:
    """Show three exemplars of each term, their mean, and sums of other exemplars."""
    figure = Figure(figsize=(8.5, 2.6), layout="constrained")
    rows = []
    for kept, name in ((0, "frame - square + disc"), (1, "ring - disc + square")):
        terms = [(1 - kept, 1), (1 - kept, 0), (kept, 0)]
        shown = [z[(attributes == torch.tensor(term)).all(1)][:3] for term in terms]
        images = [torch.cat([generate(x), generate(x.mean(0, keepdim=True))]) for x in shown]
        sum_of_shown = shown[0].mean(0) - shown[1].mean(0) + shown[2].mean(0)
        others = sums(z, attributes, torch.full((8,), kept))
        rows.append((name, [*images, generate(torch.cat([sum_of_shown[None], others]))]))
    for axes, (name, parts) in zip(figure.subplots(2, 1), rows, strict=True):
        gap = torch.zeros(16, 8)
        strips = [torch.cat(list(part[:, 0].clamp(0, 255)), 1) for part in parts]
        axes.imshow(torch.cat([x for strip in strips for x in (strip, gap)][:-1], 1), cmap="gray_r", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9, loc="left")
        axes.spines[:].set_visible(False)
    figure.savefig(Path(__file__).parent.parent / "docs" / "arithmetic.png", dpi=110)


def main(seeds: int) -> None:
    torch.set_num_threads(1)
    data = shapes()
    classify = attributes_of(data)
    for task in missing(ROWS, seed=range(seeds), model=MODELS):
        append_row(ROWS, measure(task["model"], task["seed"], data, classify))

    rows, lines = read_rows(ROWS), []
    for name in MODELS:
        found = [row for row in rows if row["model"] == name]
        lines.append([name, str(len(found)), *(mean_cell([100 * row[key] for row in found], 1) for key in COLUMNS)])
    write(
        "attribute_arithmetic",
        header("Attribute arithmetic", "make bench-attribute-arithmetic", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"After section 6.3.2 of DCGAN, https://arxiv.org/abs/1511.06434, with known attributes in the place of faces "
        f"and glasses. The data are discs and squares, solid and hollow (`--data shapes`); {STEPS:,} rounds with "
        f"{LATENT} latent variables. A sum is right if a classifier of the data finds both attributes as wanted: a "
        f"hole, and the other outline. Shares in per cent of 500 sums, for means of one, three and ten exemplars, and "
        f"of draws of the prior (chance); for three, also of sums that are right in one attribute. The classifier "
        f"knows four kinds, and names what is none of them all the same. Mean ± standard error over seeds.",
        table(["model", "seeds", *COLUMNS.values()], lines),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    main(**vars(parser.parse_args()))
