"""A joint model of digits and their labels: how often it translates either into the other rightly.

Each (label weight, share of labels, seed) appends a line to ``results/joint_vae.jsonl``; what is there is not run
again.

Run: ``python benchmarks/joint_vae.py [--seeds 5]``.
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pyro
import torch
from pyro import poutine
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor
from torch.optim import Adam

from pyrogen.data import Dataset, digits
from pyrogen.inference import ELBO, MaximumLikelihood, train
from pyrogen.models import classifier, joint_vae, to_images, to_labels

ROWS = RESULTS / "joint_vae.jsonl"
EPOCHS, BATCH, LATENT, HIDDEN, DRAWS = 60, 64, 8, (128,), 1_000
WEIGHTS, SHARES = (1.0, 10.0, 50.0), (1.0, 0.1)


def judge(data: Dataset) -> tuple[Callable[[Tensor], Tensor], float]:
    """Train a classifier that meets no joint model; return what it takes images for, and its accuracy on test data."""
    torch.manual_seed(0)
    model, _ = classifier(data.spec, hidden=(128,))
    for _ in train(MaximumLikelihood(), model, None, data.batches(128), partial(Adam, lr=3e-3), epochs=30):
        pass

    def classify(x: Tensor) -> Tensor:
        with torch.no_grad():
            return poutine.trace(model).get_trace(x).nodes["y"]["fn"].logits.argmax(1)

    test = data.eval_columns("test")
    return classify, float((classify(test["x"]) == test["y"]).double().mean())


def measure(
    weight: float, share: float, seed: int, data: Dataset, classify: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    """Fit with one seed, of which a share of the data keeps its labels, and translate."""
    pyro.set_rng_seed(seed)
    model, guide = joint_vae(data.spec, latent=LATENT, hidden=HIDDEN, label_hidden=(32,), label_weight=weight)
    columns = data.eval_columns("train")
    y = columns["y"].masked_fill(torch.rand(len(columns["y"])) >= share, -1)
    adam = partial(Adam, lr=3e-3)
    size = len(y) // BATCH * BATCH
    rows = torch.randperm(len(y))[:size].reshape(-1, BATCH)
    batches = [(columns["x"][chosen], y[chosen]) for chosen in rows]
    for _ in train(ELBO(), model, guide, batches, adam, epochs=EPOCHS, validate=False):
        pass
    model.eval()
    guide.eval()
    test = data.eval_columns("test")
    wanted = torch.arange(10).repeat(DRAWS // 10)
    labels = (to_labels(model, guide, test["x"]) == test["y"]).double().mean()
    images = (classify(to_images(model, guide, wanted)) == wanted).double().mean()
    return {"weight": weight, "share": share, "seed": seed, "labels": float(labels), "images": float(images)}


def main(seeds: int) -> None:
    torch.set_num_threads(1)
    data = digits()
    classify, accuracy = judge(data)
    for task in missing(ROWS, seed=range(seeds), weight=WEIGHTS, share=SHARES):
        append_row(ROWS, measure(**task, data=data, classify=classify))

    rows, lines = read_rows(ROWS), []
    for weight, share in product(WEIGHTS, SHARES):
        found = [row for row in rows if (row["weight"], row["share"]) == (weight, share)]
        figures = (mean_cell([100 * row[key] for row in found], 1) for key in ("labels", "images"))
        lines.append([f"{weight:g}", f"{share:.0%}", str(len(found)), *figures])
    write(
        "joint_vae",
        header("Translation by a joint model", "make bench-joint-vae", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"After the MNIST experiments of MVAE, https://arxiv.org/abs/1802.05335, on the digits of scikit-learn. "
        f"{EPOCHS} epochs in batches of {BATCH}, {LATENT} latent variables. Shares in per cent: of test images whose "
        f"drawn label is right, and of {DRAWS:,} images drawn for given labels that a classifier of its own, which is "
        f"right for {accuracy:.1%} of test images, takes for what they should be. Chance is 10%. Mean ± standard "
        f"error over seeds.",
        table(["weight of labels", "labelled", "seeds", "image to label", "label to image"], lines),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    main(**vars(parser.parse_args()))
