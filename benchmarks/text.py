"""Bits per character of the King James Bible: models of characters against bzip2 and xz.

Each (model, seed) appends a row to ``results/text.jsonl``; what is there is not run again. Runs are kept in
``runs/text``: one that is there is read with as it is, also where it was stopped early.

Run: ``python benchmarks/text.py [--seeds 3] [--models NAME ...] [--device cpu]``.
"""

import argparse
import bz2
import lzma
from pathlib import Path
from typing import Any

from command_line import command
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write

import pyrogen
from pyrogen.data import kjv
from pyrogen.data.texts import find_kjv

ROWS = RESULTS / "text.jsonl"
RUNS = Path(__file__).parent.parent / "runs" / "text"
MODELS = {
    "LSTM of 2 x 256": (
        "char-rnn --hidden 256 --layers 2 --batch-size 32 --length 100 --epochs 4 --learning-rate 0.004 "
        "--schedule cosine --clip-norm 1000"
    ),
    "LSTM of 2 x 512": (
        "char-rnn --hidden 512 --layers 2 --dropout 0.2 --batch-size 32 --length 100 --epochs 10 --learning-rate 0.002 "
        "--schedule cosine --clip-norm 1000"
    ),
}
RATE, DECAY = 0.0003, 0.002
"""Of dynamic evaluation, chosen on the first 30,000 characters of the validation split."""


def measure(model: str, seed: int, device: str) -> dict[str, Any]:
    """Train with one seed, and read the held-out text, with and without learning from it."""
    out = RUNS / f"{model.replace(' ', '-')}-{seed}"
    if not out.exists():
        words = [*MODELS[model].split(), "--data", "kjv", "--seed", str(seed), "--device", device, "--out", str(out)]
        command("train", *words)
    learning = ["--dynamic-rate", str(RATE), "--dynamic-decay", str(DECAY)]
    metrics = command("evaluate", str(out), "--device", device, *learning)["metrics"]
    parameters = sum(p.numel() for p in pyrogen.load(str(out)).model.parameters())
    figures = {name: metrics[name]["value"] for name in ("bits_per_char", "bits_per_char_dynamic")}
    run = pyrogen.Run.open(out)
    row = {"model": model, "seed": seed, "steps": run.metrics()[-1]["step"], "trained_on": run.manifest["device"]}
    return row | {"parameters": parameters} | figures


def compressed() -> list[list[str]]:
    """Return the bits a byte of compressors, on the whole file, on the held-out end, and on what the end adds."""
    whole = find_kjv().read_bytes()
    end = bytes(kjv(unit="byte").texts["test"].tolist())
    rest = whole[: -len(end)]
    assert whole.endswith(end)
    rows = []
    for name, size in (
        ("bzip2 -9", lambda data: len(bz2.compress(data, 9))),
        ("xz -9", lambda data: len(lzma.compress(data, preset=9))),
    ):
        added = size(whole) - size(rest)
        rates = (8 * size(whole) / len(whole), 8 * size(end) / len(end), 8 * added / len(end))
        rows.append([name, *(f"{rate:.3f}" for rate in rates)])
    return rows


def report() -> None:
    rows = read_rows(ROWS)
    lines = []
    for model in MODELS:
        mine = [row for row in rows if row["model"] == model]
        if mine:
            figures = (("steps", 0), ("bits_per_char", 3), ("bits_per_char_dynamic", 3))
            cells = [mean_cell([row[name] for row in mine], places) for name, places in figures]
            on = ", ".join(sorted({row["trained_on"] for row in mine}))
            lines.append([model, str(len(mine)), f"{mine[0]['parameters']:,}", on, *cells])
    head = ("model", "seeds", "parameters", "trained on", "steps taken", "bits/char", "while learning")
    lead = (
        "The King James Bible with its verses' references, 4,404,412 characters, the last twentieth held out: "
        "from Colossians 1:10 to Revelation, books of whose names and style the rest has little. Characters are bytes. "
        f"*While learning*: by dynamic evaluation, rate {RATE}, decay {DECAY}. The best checkpoint on the validation "
        "split is measured, also of a run that was stopped before its schedule ended (10 epochs are 12,390 steps)."
    )
    of_compressors = ("compressor", "whole file", "held-out end alone", "what the end adds to the rest")
    commands = "\n".join(f"- {model}: `pyrogen train {words} --data kjv`" for model, words in MODELS.items())
    top = header("Models of text", "make bench-autoregressive", 1, versions("torch", "pyro-ppl", "pyrogen-ppl"))
    write("text", top, lead, table(of_compressors, compressed()), commands, table(head, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    for of in missing(ROWS, seed=range(options.seeds), model=options.models):
        append_row(ROWS, measure(**of, device=options.device))
    report()


if __name__ == "__main__":
    main()
