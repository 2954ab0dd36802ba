"""Bits/dim of a plain VAE on raw 8-bit Fashion-MNIST, over seeds: what `pyrogen train` and `evaluate` give a user.

Each seed appends a row to ``results/fashion_mnist_vae.jsonl``; seeds that are there are not run again.

Run: ``python benchmarks/fashion_mnist_vae.py [--seeds 3]``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from statistics import mean, stdev
from typing import Any

from report import RESULTS, append_row, header, missing, read_rows, table, versions, write

TRAIN = "vae --data fashion-mnist --likelihood discretized-logistic --epochs 12 --device cpu"
ROWS = RESULTS / "fashion_mnist_vae.jsonl"
FIGURES = {
    "elbo": "ELBO, nats",
    "iwae": "IWAE-100, nats",
    "elbo_bits_per_dim": "ELBO, bits/dim",
    "iwae_bits_per_dim": "IWAE-100, bits/dim",
}


def pyrogen(*words: str) -> dict[str, Any]:
    """Run a command and return the object that it prints."""
    command = [sys.executable, "-m", "pyrogen", *words, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measure(seed: int) -> dict[str, Any]:
    """Train and evaluate with one seed."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        pyrogen("train", *TRAIN.split(), "--seed", str(seed), "--out", out)
        metrics = pyrogen("evaluate", out)["metrics"]
    return {"seed": seed} | {name: metrics[name]["value"] for name in FIGURES}


def main(seeds: int) -> None:
    for task in missing(ROWS, seed=range(seeds)):
        append_row(ROWS, measure(**task))
    rows = read_rows(ROWS)
    cells = [[str(row["seed"]), *(f"{row[name]:.4f}" for name in FIGURES)] for row in rows]
    errors = {name: stdev(row[name] for row in rows) / len(rows) ** 0.5 if len(rows) > 1 else 0.0 for name in FIGURES}
    summary = [f"{mean(row[name] for row in rows):.4f} ± {errors[name]:.4f}" for name in FIGURES]
    about = (
        f"`pyrogen train {TRAIN}`, evaluated on the 10,000 test images at the best checkpoint by validation. "
        "Networks 784-400-400-50 and back, Adam at 1e-3, batches of 128. Mean ± standard error over seeds."
    )
    known = versions("torch", "pyro-ppl", "pyrogen-ppl")
    start = header("A plain VAE on raw Fashion-MNIST", "make bench-fashion-mnist-vae", 1, known)
    write("fashion_mnist_vae", start, about, table(["seed", *FIGURES.values()], [*cells, ["mean", *summary]]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    main(**vars(parser.parse_args()))
