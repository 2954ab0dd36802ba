"""Digits among clothes: what a PixelCNN++ of Fashion-MNIST says of MNIST's digits, at 14 x 14 pixels, over seeds.

Each seed fits the model and a background model for each rate of mutation, and appends a row to
``results/outliers.jsonl``; seeds that are there are not run again. All rates are shown, and none is chosen.

Run: ``python benchmarks/outliers.py [--seeds 0 1 2] [--steps 6000] [--device cpu] [--at-once 1]``.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import command
from numpy.typing import NDArray
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
from torch.nn.functional import avg_pool2d

from pyrogen.data import fashion_mnist, mnist_10k

ROWS = RESULTS / "outliers.jsonl"
RUNS = Path(__file__).parent.parent / "runs" / "outliers"
CLOTHES, DIGITS = RUNS / "clothes.npz", RUNS / "digits.npy"
TRAIN = (
    "pixelcnn-pp --likelihood discretized-logistic --channels 32 --layers 1 --batch-size 32 --learning-rate 0.001 "
    "--schedule cosine --ema 0.999 --compile on"
)
STEPS = 6_000
RATES = (0.1, 0.2, 0.3)
PUBLISHED = {"likelihood": ".089", "ratio": ".973"}


def smaller(x: Tensor) -> NDArray[np.uint8]:
    """Average blocks of 2 x 2 pixels, and round."""
    return avg_pool2d(x.float(), 2).round().to(torch.uint8).numpy()


def prepare() -> None:
    """Write both data sets at 14 x 14 pixels; all 10,000 digits are outliers."""
    RUNS.mkdir(parents=True, exist_ok=True)
    clothes = fashion_mnist(validation=0.0)
    np.savez_compressed(CLOTHES, **{f"x_{split}": smaller(clothes.split(split)["x"]) for split in ("train", "test")})
    digits = mnist_10k(validation=0.0, test=0.0).train["x"]
    np.save(DIGITS, smaller(digits), allow_pickle=False)


def trained(name: str, seed: int, steps: int, device: str, *more: str) -> str:
    """Fit with one seed, and return the path of the run."""
    out = str(RUNS / f"{name}-{seed}")
    words = [*TRAIN.split(), "--data", str(CLOTHES), "--steps", str(steps), "--seed", str(seed), "--device", device]
    command("train", *words, *more, "--out", out, "--overwrite")
    return out


def measure(seed: int, steps: int, device: str, at_once: int) -> dict[str, Any]:
    """Fit all models of a seed, so many at once, and measure the areas under their scores' curves."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        fits = [pool.submit(trained, "model", seed, steps, device)]
        for rate in RATES:
            fits.append(pool.submit(trained, f"background-{rate}", seed, steps, device, "--mutate", str(rate)))
    model, *backgrounds = (fit.result() for fit in fits)
    row: dict[str, Any] = {"seed": seed, "steps": steps}
    row["bits_per_dim"] = command("evaluate", model, "--device", device)["metrics"]["bits_per_dim"]["value"]
    for rate, background in zip(RATES, backgrounds, strict=True):
        words = ["outliers", model, str(DIGITS), "--background", background, "--device", device]
        found = {name.removeprefix("auroc_"): figure["value"] for name, figure in command(*words)["metrics"].items()}
        row |= {"likelihood": found["likelihood"], "typicality": found["typicality"], f"ratio, {rate}": found["ratio"]}
    return row | {"seconds": time.perf_counter() - begin, "device": device_name(device)}


def main(seeds: list[int], steps: int, device: str, at_once: int) -> None:
    prepare()
    for task in missing(ROWS, steps=[steps], seed=seeds):
        append_row(ROWS, measure(task["seed"], steps, device, at_once))
    rows = [row for row in read_rows(ROWS) if row["steps"] == steps]
    names = ["likelihood", "typicality", *(f"ratio, {rate}" for rate in RATES)]
    cells = [[n, mean_cell([row[n] for row in rows], 3), PUBLISHED.get(n.partition(",")[0], "")] for n in names]
    known = versions("torch", "pyro-ppl", "pyrogen-ppl")
    write(
        "outliers",
        header("Digits among clothes", "python benchmarks/outliers.py", 1, known),
        f"AUROC: the probability that one of 10,000 MNIST digits scores higher, as more outlying, than one of the "
        f"10,000 test images of Fashion-MNIST. Both at 14 x 14 pixels, means of 2 x 2, 256 levels. `pyrogen train "
        f"{TRAIN} --steps {steps}`, and with `--mutate RATE` for the background of the ratio; `pyrogen outliers`. The "
        f"usual likelihood of typicality is of validation images. Mean ± standard error over {len(rows)} seeds; "
        f"{mean_cell([row['bits_per_dim'] for row in rows], 3)} bits/dim on test images. Fitted on: {devices(rows)}.",
        table(["score", "AUROC", "published, 28 x 28"], cells),
        "Published: Likelihood Ratios for Out-of-Distribution Detection (Ren et al., 2019), "
        "https://arxiv.org/abs/1906.02845, whose rate of mutation and weight decay were chosen on a third data set.",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--at-once", type=int, default=1, help="how many models are fitted at once")
    main(**vars(parser.parse_args()))
