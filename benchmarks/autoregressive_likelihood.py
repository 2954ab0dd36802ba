"""Exact likelihoods of autoregressive models on binary digits and on Fashion-MNIST, over seeds, by the command line.

Each (task, model, seed) appends a row to ``results/autoregressive_likelihood.jsonl``; what is there is not run again.
Runs are kept in ``runs/autoregressive``, where ``autoregressive_sampling.py`` finds a trained network.

Run: ``python benchmarks/autoregressive_likelihood.py [--seeds 3] [--tasks digits fashion conditional] [--models ...]
[--device cpu]``.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import command
from report import RESULTS, append_row, device_name, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor, nn
from torch.optim import Adam

import pyrogen
from pyrogen import train
from pyrogen.data import apply_pixels, mnist_10k
from pyrogen.distributions import Choice
from pyrogen.evaluation import accuracy
from pyrogen.inference import MaximumLikelihood
from pyrogen.models import Classifier
from pyrogen.nn import ConvolutionalEncoder

ROWS = RESULTS / "autoregressive_likelihood.jsonl"
RUNS = Path(__file__).parent.parent / "runs" / "autoregressive"

BINARY = "--data mnist-10k --pixels dynamic-binary --schedule cosine --ema 0.999 --compile on"
DENSE = f"{BINARY} --batch-size 64 --epochs 150"
CONVOLUTIONAL = f"{BINARY} --batch-size 32 --epochs 20 --learning-rate 0.003"
LEVELS = "--data fashion-mnist --learning-rate 0.001 --schedule cosine --ema 0.9995 --compile on"
TASKS: dict[str, dict[str, str]] = {
    "digits": {
        "fvsbn": f"fvsbn {DENSE}",
        "nade": f"nade --hidden 200 {BINARY} --batch-size 16 --epochs 20 --learning-rate 0.003",
        "made": f"made --hidden [500,500] {DENSE}",
        "pixelcnn": f"pixelcnn --channels 64 --layers 6 {CONVOLUTIONAL}",
        "gated-pixelcnn": f"gated-pixelcnn --channels 32 --layers 6 {CONVOLUTIONAL}",
    },
    "conditional": {
        "gated-pixelcnn, given labels": f"gated-pixelcnn --conditional true --channels 32 --layers 6 {CONVOLUTIONAL}",
        "given labels, of thresholded digits": (
            f"gated-pixelcnn --conditional true --channels 32 --layers 6 {CONVOLUTIONAL}".replace(
                "dynamic-binary", "threshold"
            )
        ),
        "wider and longer": (
            f"gated-pixelcnn --conditional true --channels 64 --layers 8 {BINARY} --batch-size 64 --epochs 100 "
            "--learning-rate 0.003"
        ),
    },
    "fashion": {
        "1 layer": f"pixelcnn-pp --channels 32 --layers 1 --batch-size 16 --steps 12000 {LEVELS}",
        "2 layers": f"pixelcnn-pp --channels 32 --layers 2 --batch-size 16 --steps 7000 {LEVELS}",
        "2 layers of 64 channels": f"pixelcnn-pp --channels 64 --layers 2 --batch-size 32 --steps 12000 {LEVELS}",
    },
}
OF_EACH = 100
"""How many of each class are drawn."""

COLD = 0.7
"""The other temperature that conditional draws are made at."""


def trained(name: str, words: str, seed: int, device: str) -> tuple[str, float]:
    """Train with one seed; return the path of the run and the seconds that it took."""
    out = RUNS / f"{name}-{seed}".replace(", ", "-").replace(",", "").replace(" ", "-")
    begin = time.perf_counter()
    command("train", *words.split(), "--seed", str(seed), "--device", device, "--out", str(out), "--overwrite")
    return str(out), time.perf_counter() - begin


def measure(task: str, model: str, seed: int, device: str) -> dict[str, Any]:
    """Train and evaluate; of a conditional model, ask a classifier what its draws show."""
    out, seconds = trained(model, TASKS[task][model], seed, device)
    metrics = command("evaluate", out, "--device", device)["metrics"]
    on_training = command("evaluate", out, "--split", "train", "--device", device)["metrics"]
    programs = pyrogen.load(out)
    row = {
        "task": task,
        "model": model,
        "seed": seed,
        "nats": -metrics["log_likelihood"]["value"],
        "bits_per_dim": metrics["bits_per_dim"]["value"],
        "stderr": metrics["log_likelihood"]["stderr"],
        "train_nats": -on_training["log_likelihood"]["value"],
        "parameters": sum(p.numel() for p in programs.model.parameters()),
        "seconds": seconds,
        "device": device_name(device),
    }
    if task != "conditional":
        return row
    words = TASKS[task][model].split()
    pixels = words[words.index("--pixels") + 1]
    judge, judged_right = judge_of(pixels, seed)
    return row | {
        "draws": 10 * OF_EACH,
        "judge": f"convolutional, {judged_right:.1%}",
        "as_asked": as_asked(programs.model, judge, seed),
        "as_asked_cold": as_asked(programs.model, judge, seed, COLD),
    }


class Shifted:
    """Batches of images that are moved by up to three pixels: draws lie elsewhere than data, which are centred."""

    def __init__(self, batches: Iterable[dict[str, Tensor]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.batches:
            yield batch | {"x": batch["x"].roll(torch.randint(-3, 4, (2,)).tolist(), (-2, -1))}


def judge_of(pixels: str, seed: int) -> tuple[Classifier, float]:
    """Train a convolutional classifier of binary digits; return it, and its share of right labels on test digits."""
    torch.manual_seed(seed)
    data = apply_pixels(mnist_10k(), pixels, seed)
    body = ConvolutionalEncoder(data.spec.shape, 64, (16, 32))
    model = Classifier(nn.Sequential(body, nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10)), data.spec)
    for _ in train(MaximumLikelihood(), model, None, Shifted(data.batches(64)), partial(Adam, lr=2e-3), epochs=12):
        pass
    return model.eval(), accuracy(model, [data.eval_columns("test")]).value


def as_asked(model: Any, judge: Classifier, seed: int, temperature: float = 1.0) -> float:
    """Draw digits of each class, and return the share that a classifier of such digits takes for what they are."""
    torch.manual_seed(seed)
    model.choice = Choice(temperature)
    y = torch.arange(10).repeat(OF_EACH)
    with torch.no_grad():
        x = model.eval()(y=y)
    np.savez_compressed(RUNS / f"as-asked-{seed}-at-{temperature}.npz", x=x.numpy().astype(np.uint8), y=y.numpy())
    return accuracy(judge, [{"x": x, "y": y}]).value


HEAD = ("model", "seeds", "test, nats", "bits/dim", "training, nats", "parameters", "seconds", "on")
LEADS = {
    "digits": (
        "10,000 MNIST digits, binarised anew in each epoch; 8,000 to train on, 1,000 to choose the checkpoint by, "
        "1,000 to test, drawn once. Published, on 60,000, nats: FVSBN 96.58, NADE 85.65, MADE 84.87, gated PixelCNN "
        "81.50, PixelCNN 81.45 (https://github.com/EugenHotaj/pytorch-generative)."
    ),
    "conditional": (
        f"The same digits given their labels; *as asked*: draws, at temperature 1 and {COLD}, that a judge takes for "
        f"their label; beside it, how many test digits it takes for theirs. It matters who judges: draws are not "
        f"centred as data are, and dense networks are not taught what is shifted: shares by different judges cannot be "
        f"compared, nor nats of thresholded digits with those of others."
    ),
    "fashion": (
        "Fashion-MNIST, raw 8-bit levels, 54,000 to train on, the published 10,000 to test. Published, bits/dim: IDF "
        "3.47, Bit-Swap 3.28."
    ),
}


ASKED = {"as_asked": "as asked", "as_asked_cold": f"at {COLD}"}


def asked_cell(rows: list[dict[str, Any]], key: str) -> str:
    found = [row[key] for row in rows if key in row]
    return mean_cell(found, 3) if found else "–"


def report() -> None:
    rows = read_rows(ROWS)
    sections = []
    for task, models in TASKS.items():
        lines = []
        for model in models:
            mine = [row for row in rows if row["task"] == task and row["model"] == model]
            if mine:
                figures = (("nats", 2), ("bits_per_dim", 4), ("train_nats", 2))
                cells = [mean_cell([row[name] for row in mine], places) for name, places in figures]
                shares = [asked_cell(mine, key) for key in ASKED]
                asked = [str(mine[0]["draws"]), mine[0]["judge"], *shares] if task == "conditional" else []
                seconds = mean_cell([row["seconds"] for row in mine], 0)
                on = ", ".join(sorted({row["device"] for row in mine}))
                lines.append([model, str(len(mine)), *cells, f"{mine[0]['parameters']:,}", seconds, on, *asked])
        if lines:
            head = (*HEAD, "draws", "judge", *ASKED.values()) if task == "conditional" else HEAD
            shown = {line[0] for line in lines}
            commands = "\n".join(
                f"- {name}: `pyrogen train {words}`" for name, words in models.items() if name in shown
            )
            sections += [f"## {task}", LEADS[task], commands, table(head, lines)]
    found = versions("torch", "pyro-ppl", "pyrogen-ppl")
    top = header(
        "Exact likelihoods of autoregressive models", "make bench-autoregressive", torch.get_num_threads(), found
    )
    write("autoregressive_likelihood", top, *sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--models", nargs="+", default=None, help="of the tasks (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    for task in options.tasks:
        models = [model for model in TASKS[task] if options.models is None or model in options.models]
        for of in missing(ROWS, seed=range(options.seeds), task=[task], model=models):
            append_row(ROWS, measure(**of, device=options.device))
    report()


if __name__ == "__main__":
    main()
