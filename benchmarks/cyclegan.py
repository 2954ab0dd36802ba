"""Digits to inverted and to rotated digits and back, without pairs: do labels survive, and does the cycle close?

The embedded 8 x 8 digits are cut into halves. One half is the domain ``a``; the other, inverted or turned by 90
degrees, is ``b``. On held-out digits, whose true translation is known, a classifier that was trained on labelled digits
of the target's domain says how many translations keep their label. Every (task, seed) appends a line to
``results/cyclegan.jsonl``; what is there is not run again. The first seed's translations of a digit of each class are
kept in ``runs/cyclegan``, and shown in ``docs/translation.png`` once both are there. A third task inverts by
translators that halve the images first.

Run: ``python benchmarks/cyclegan.py [--tasks NAME ...] [--seeds 3]``.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pyrogen.data import Unpaired, from_arrays
from pyrogen.evaluation import evaluating
from pyrogen.inference import CycleGAN, train
from pyrogen.models import cyclegan
from pyrogen.nn import PatchCritic
from pyrogen.pictures import image_grid
from pyrogen.spec import DataSpec, scaled

ROWS = RESULTS / "cyclegan.jsonl"
ROOT = Path(__file__).parent.parent
DRAWN, PICTURE = ROOT / "runs" / "cyclegan", ROOT / "docs" / "translation.png"
CRITIC_CHANNELS = (32, 64)
TOP, HELD_OUT, BATCH, STEPS = 16, 360, 32, 2000
LEARNING_RATE, CRITIC_LEARNING_RATE = 2e-3, 5e-4
Array = NDArray[Any]


class Task(NamedTuple):
    """What is done to digits and undone, the translators' channels, and their residual blocks."""

    change: Callable[[Array], Array]
    undo: Callable[[Array], Array]
    channels: Sequence[int]
    blocks: int


def inverted(x: Array) -> Array:
    """Swap black and white."""
    return TOP - x


def turned(x: Array, times: int = 1) -> Array:
    """Turn by 90 degrees."""
    return np.ascontiguousarray(np.rot90(x, times, axes=(1, 2)))


TASKS = {
    "inverted": Task(inverted, inverted, (32,), 1),
    "rotated": Task(turned, partial(turned, times=-1), (32,), 1),
    "inverted, translators that halve": Task(inverted, inverted, (32, 64), 3),
}
SHOWN = ("inverted", "rotated")


def halves(task: str, seed: int) -> tuple[Unpaired, Array, Array]:
    """Return disjoint halves of the digits as two domains, and held-out digits with labels."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8).astype(np.uint8)
    order = np.random.default_rng(seed).permutation(len(x))
    held_out, rest = order[:HELD_OUT], order[HELD_OUT:]
    one, other = np.array_split(rest, 2)

    def domain(rows: Array, change: Callable[[Array], Array], name: str) -> Any:
        arrays = {"x_train": change(x[rows]), "x_test": change(x[held_out])}
        return from_arrays(arrays, name=name, levels=TOP + 1, validation=0.0)

    data = Unpaired(domain(one, lambda x: x, "digits"), domain(other, TASKS[task].change, f"{task} digits"))
    return data, x[held_out], y[held_out]


def classifier(seed: int) -> SVC:
    """Train a classifier on all digits that are not held out; it takes no part in the translation."""
    x, y = load_digits(return_X_y=True)
    rest = np.random.default_rng(seed).permutation(len(x))[HELD_OUT:]
    return SVC(gamma=0.001).fit(x[rest], y[rest])


def measure(task: str, seed: int) -> dict[str, Any]:
    """Train with one seed, and translate held-out digits there and back."""
    data, digits, labels = halves(task, seed)
    torch.manual_seed(seed)
    model, guide = cyclegan(data.spec, channels=TASKS[task].channels, blocks=TASKS[task].blocks)
    critics = [PatchCritic(data.spec.shape, CRITIC_CHANNELS) for _ in range(2)]
    objective = CycleGAN(*critics, data.spec.shape, transform=lambda x: scaled(x, data.spec))

    def decay(optimizer: Optimizer) -> LRScheduler:
        """Half of the steps at the full rate, then down to zero, as in the paper."""
        return LambdaLR(optimizer, lambda step: min(1.0, 2 - 2 * step / STEPS))

    def adam(rate: float) -> Callable[[Any], Optimizer]:
        return lambda parameters: Adam(parameters, lr=rate, betas=(0.5, 0.999))

    start = time.perf_counter()
    for step in train(
        objective, model, guide, data.batches(BATCH, drop_last=True), adam(LEARNING_RATE), adam(CRITIC_LEARNING_RATE),
        num_steps=STEPS, scheduler=decay, critic_scheduler=decay, validate=False,
    ):  # fmt: skip
        if step.index % 500 == 0:
            print(f"{task}, seed {seed}, step {step.index}: loss {float(step.loss):.3f}", flush=True)
    seconds = time.perf_counter() - start
    found = translated(model, guide, data, digits, labels, task, seed)
    return {"task": task, "seed": seed, "steps": STEPS, "seconds": seconds} | found


def translated(
    model: Any, guide: Any, data: Unpaired, digits: Array, labels: Array, task: str, seed: int
) -> dict[str, float]:
    """Compare translations of held-out digits with what they should be."""
    a, b = data.eval_columns("test").values()
    with evaluating(model, guide):
        to_b, to_a = model(a=a), guide(b=b)
        around_a, around_b = guide(b=to_b), model(a=to_a)
    judge = classifier(seed)
    upright = {"a": to_a[:, 0].numpy(), "b": TASKS[task].undo(to_b[:, 0].numpy())}
    found = {
        f"agreement to {name}": float((judge.predict(x.reshape(len(x), -1)) == labels).mean())
        for name, x in upright.items()
    }
    found["classifier"] = float(judge.score(digits.reshape(len(digits), -1), labels))
    for name, one, other in (("a", a, around_a), ("b", b, around_b)):
        found[f"cycle l1 of {name}"] = l1(one, other, data.spec)
    found["error to b"], found["error to a"] = l1(to_b, b, data.spec), l1(to_a, a, data.spec)
    if seed == 0:
        DRAWN.mkdir(parents=True, exist_ok=True)
        chosen = [int(np.flatnonzero(labels == label)[0]) for label in range(10)]
        np.save(DRAWN / f"{task}.npy", torch.stack([values[chosen] for values in (a, to_b, around_a)]).numpy())
    return found


def l1(x: Tensor, y: Tensor, spec: DataSpec) -> float:
    """Average the distance of pixels, in units in which they go from -1 to 1."""
    return float((scaled(x, spec) - scaled(y, spec)).abs().mean())


def draw_figure() -> None:
    """Show the first seed's digits, what they become, and what becomes of that, if both tasks have run."""
    paths = [DRAWN / f"{task}.npy" for task in SHOWN]
    if all(path.exists() for path in paths):
        drawn = torch.tensor(np.concatenate([np.load(path, allow_pickle=False) for path in paths]))
        spec = DataSpec(tuple(drawn.shape[2:]), "levels", levels=TOP + 1)
        PICTURE.write_bytes(image_grid(drawn.flatten(0, 1), spec, 10, 6).light)


def write_table() -> None:
    """Write means and standard errors over seeds."""
    rows = read_rows(ROWS)
    cells = []
    for task in TASKS:
        found = [row for row in rows if row["task"] == task]
        if found:
            cells.append(
                [task, str(len(found)), str(found[0]["steps"])]
                + [mean_cell([100 * row[f"agreement to {name}"] for row in found], 1) for name in ("b", "a")]
                + [mean_cell([100 * row["classifier"] for row in found], 1)]
                + [mean_cell([row[f"cycle l1 of {name}"] for row in found], 3) for name in ("a", "b")]
                + [mean_cell([row[f"error to {name}"] for row in found], 3) for name in ("b", "a")]
                + [mean_cell([row["seconds"] for row in found], 0)]
            )
    head = [
        "b is", "seeds", "steps", "labels kept a → b, %", "labels kept b → a, %", "the classifier on digits, %",
        "cycle L1 of a", "cycle L1 of b", "L1 from the truth, a → b", "L1 from the truth, b → a", "seconds",
    ]  # fmt: skip
    notes = (
        "Mean ± standard error over seeds, on 360 held-out digits. Pixels go from -1 to 1; L1 is the mean over pixels. "
        "Labels are those that a support vector machine gives, which was trained on 1,437 labelled digits (of the "
        "target's domain: inverting or turning its data back is the same). The translators saw 718 or 719 digits of "
        "each domain, none of them in both, and no label. Seconds are of a machine that had other work."
    )
    title = header(
        "Translation without pairs", "python benchmarks/cyclegan.py", 1,
        versions("torch", "pyro-ppl", "scikit-learn"),
    )  # fmt: skip
    print(write("cyclegan", title, notes, table(head, cells)))


def main() -> None:
    """Measure what is not there yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for due in missing(ROWS, task=arguments.tasks, seed=range(arguments.seeds)):
        append_row(ROWS, measure(**due))
    draw_figure()
    write_table()


if __name__ == "__main__":
    main()
