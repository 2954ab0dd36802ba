"""Bits per character of the King James Bible: models of characters against bzip2 and xz.

Each (model, seed) appends a row to ``results/text.jsonl``; what is there is not run again.

Run: ``python benchmarks/text.py [--seeds 3] [--models NAME ...]``.
"""

import argparse
import bz2
import json
import lzma
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
        "char-rnn --hidden 512 --layers 2 --batch-size 32 --length 100 --epochs 5 --learning-rate 0.003 "
        "--schedule cosine --clip-norm 1000"
    ),
}
RATE = 0.05
"""Of dynamic evaluation, chosen on the validation split."""


def command(*words: str) -> dict[str, Any]:
    """Run a command and return the object that it prints."""
    done = subprocess.run([sys.executable, "-m", "pyrogen", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(model: str, seed: int) -> dict[str, Any]:
    """Train with one seed, and read the held-out text, with and without learning from it."""
    out, begin = RUNS / f"{model.replace(' ', '-')}-{seed}", time.perf_counter()
    command("train", *MODELS[model].split(), "--seed", str(seed), "--data", "kjv", "--out", str(out), "--overwrite")
    seconds = time.perf_counter() - begin
    metrics = command("evaluate", str(out), "--dynamic-rate", str(RATE))["metrics"]
    parameters = sum(p.numel() for p in pyrogen.load(str(out)).model.parameters())
    figures = {name: metrics[name]["value"] for name in ("bits_per_char", "bits_per_char_dynamic")}
    return {"model": model, "seed": seed, "seconds": seconds, "parameters": parameters} | figures


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
            figures = (("bits_per_char", 3), ("bits_per_char_dynamic", 3), ("seconds", 0))
            cells = [mean_cell([row[name] for row in mine], places) for name, places in figures]
            lines.append([model, str(len(mine)), f"{mine[0]['parameters']:,}", *cells])
    head = ("model", "seeds", "parameters", "bits/char", f"while learning, rate {RATE}", "seconds of training")
    lead = (
        "The King James Bible with its verses' references, 4,404,412 characters, the last twentieth held out: "
        "from Colossians 1:10 to Revelation, books of whose names and style the rest has little. Characters are bytes."
    )
    of_compressors = ("compressor", "whole file", "held-out end alone", "what the end adds to the rest")
    commands = "\n".join(f"- {model}: `pyrogen train {words} --data kjv`" for model, words in MODELS.items())
    top = header("Models of text", "make bench-autoregressive", 1, versions("torch", "pyro-ppl", "pyrogen-ppl"))
    write("text", top, lead, table(of_compressors, compressed()), commands, table(head, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    for of in missing(ROWS, seed=range(options.seeds), model=options.models):
        append_row(ROWS, measure(**of))
    report()


if __name__ == "__main__":
    main()
