"""Tables with half of their values missing: how far what is filled in is from the truth.

Every (data, method, seed) appends a line to ``results/imputation.jsonl``; what is there is not run again. What is
missing is the same for all: that of the authors' notebooks.

Run: ``python benchmarks/imputation.py [--data breast-cancer iris] [--methods NAME ...] [--seeds 5]``; with
``--seeds 0``, only the table is written.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from torch import Tensor
from torch.optim import Adam

from pyrogen.data import Batches
from pyrogen.evaluation import iwae
from pyrogen.evaluation.imputation import impute
from pyrogen.inference import IWAE, train
from pyrogen.models import miwae
from pyrogen.spec import DataSpec

ROWS = RESULTS / "imputation.jsonl"
SHARE, SEED_OF_MASK = 0.5, 1234
HIDDEN, NUM_PARTICLES, OF_IMPUTATION = (128, 128), 20, 10_000


class Setting(NamedTuple):
    """A table, and how its model is trained.

    Attributes:
        load: of scikit-learn.
        latent: how many latent variables.
        rate: Adam's.
        batch: data in a batch.
        epochs: passes over the data.
        published: the mean squared error of the authors' notebook.
    """

    load: Callable[..., Any]
    latent: int
    rate: float
    batch: int
    epochs: int
    published: str


SETTINGS = {
    "breast-cancer": Setting(load_breast_cancer, 10, 2e-4, 32, 1001, "0.287"),
    "iris": Setting(load_iris, 1, 1e-3, 64, 2001, "0.444"),
}


class Incomplete(NamedTuple):
    """A table, standardised by all its values, as the notebooks do; and the same with NaN where values are missing."""

    full: Tensor
    x: Tensor


def incomplete(setting: Setting) -> Incomplete:
    """Take exactly half of the values away, as the authors do."""
    data = setting.load().data
    full = (data - data.mean(0)) / data.std(0)
    values = full.flatten()
    np.random.seed(SEED_OF_MASK)
    values[np.random.choice(values.size, int(values.size * SHARE), replace=False)] = np.nan
    return Incomplete(torch.from_numpy(full).float(), torch.from_numpy(values.reshape(full.shape)).float())


def mean_squared_error(filled: Tensor, data: Incomplete) -> float:
    """Compare values that were missing with the truth."""
    return float((filled - data.full)[data.x.isnan()].double().square().mean())


def fit_miwae(data: Incomplete, setting: Setting, seed: int, encoder: str) -> dict[str, float]:
    """Train on the incomplete table, and fill it in by importance sampling and, for comparison, by the guide alone."""
    pyro.set_rng_seed(seed)
    spec = DataSpec(tuple(data.x.shape[1:]), "real")
    model, guide = miwae(spec, latent=setting.latent, hidden=HIDDEN, encoder=encoder)  # type: ignore[arg-type]
    batches = Batches({"x": data.x}, setting.batch, drop_last=True)
    adam = partial(Adam, lr=setting.rate)
    training = train(
        IWAE(NUM_PARTICLES), model, guide, batches, adam, epochs=setting.epochs, validate=False, compile=True
    )
    for _ in training:
        pass
    found = impute(model, guide, data.x, OF_IMPUTATION)
    with torch.no_grad():
        of_guide_mean = model.model.likelihood(model.model.decoder(guide.posterior(data.x).mean)).mean
    return {
        "mse": mean_squared_error(found.mean, data),
        "mse_of_guide_mean": mean_squared_error(of_guide_mean, data),
        "bound": iwae(model, guide, [{"x": data.x}], NUM_PARTICLES).value,
        "median_effective_particles": float(found.effective_particles.median()),
    }


def fit_imputer(data: Incomplete, setting: Setting, seed: int, make: Callable[[int], Any]) -> dict[str, float]:
    """Fill the table in by an imputer of scikit-learn."""
    return {"mse": mean_squared_error(torch.from_numpy(make(seed).fit_transform(data.x.numpy())), data)}


def forest(seed: int) -> IterativeImputer:
    """Make what is like missForest, with the settings of the authors' notebook."""
    trees = ExtraTreesRegressor(n_estimators=100, max_depth=8, random_state=seed)
    return IterativeImputer(trees, random_state=seed)


class Method(NamedTuple):
    """How a table is filled in, and whether that depends on a seed."""

    measure: Callable[[Incomplete, Setting, int], dict[str, float]]
    is_random: bool


METHODS = {
    "MIWAE, normal guide": Method(partial(fit_miwae, encoder="gaussian"), True),
    "MIWAE, Student-t guide": Method(partial(fit_miwae, encoder="student-t"), True),
    "mean of each column": Method(partial(fit_imputer, make=lambda seed: SimpleImputer()), False),
    "10 nearest neighbours": Method(partial(fit_imputer, make=lambda seed: KNNImputer(n_neighbors=10)), False),
    "iterative, Bayesian ridge": Method(partial(fit_imputer, make=lambda seed: IterativeImputer(max_iter=100)), False),
    "iterative, extra trees (missForest)": Method(partial(fit_imputer, make=forest), True),
}


def table_of(data: str) -> str:
    lines = []
    for method in METHODS:
        rows = [row for row in read_rows(ROWS) if (row["data"], row["method"]) == (data, method)]
        if not rows:
            continue
        cells = [
            mean_cell([row[key] for row in rows], digits) if key in rows[0] else ""
            for key, digits in (("mse", 3), ("mse_of_guide_mean", 3), ("bound", 2), ("median_effective_particles", 0))
        ]
        lines.append([method, str(len(rows)), *cells, mean_cell([row["seconds"] for row in rows], 0)])
    head = ["", "seeds", "MSE", "by the guide's mean", "bound, nats", "effective particles", "seconds"]
    return table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.data:
        setting, data = SETTINGS[name], incomplete(SETTINGS[name])
        for method in options.methods:
            seeds = range(options.seeds if METHODS[method].is_random else 1)
            for task in missing(ROWS, data=[name], method=[method], seed=seeds):
                start = time.perf_counter()
                figures = METHODS[method].measure(data, setting, task["seed"])
                append_row(ROWS, task | figures | {"seconds": time.perf_counter() - start})
    write(
        "imputation",
        header("Half of a table missing", "make bench-imputation", 1,
               versions("torch", "pyro-ppl", "scikit-learn", "pyrogen-ppl")),
        f"After MIWAE (Mattei and Frellsen, 2019), https://arxiv.org/abs/1812.02633, by the protocol of the authors' "
        f"notebooks, https://github.com/pamattei/miwae. Half of the values of each table, standardised, are missing "
        f"completely at random, by NumPy's seed {SEED_OF_MASK}; mean squared error where they are missing. Encoder and "
        f"decoder have two layers of {HIDDEN[0]}, SiLU, where the notebook on breast cancer has a third one in the "
        f"encoder, ReLU and a Student-t guide; {NUM_PARTICLES} particles in training, {OF_IMPUTATION:,} to fill in, "
        f"where the notebook on iris has 10; Adam, whole batches alone. By the guide's mean: what the decoder makes "
        f"of it, without weights. The bound is that of the observed values of a datum. Mean ± standard error over "
        f"seeds of training; what is missing is the same for all.",
        *(
            f"## {name}\n\n{setting.latent} latent variable{'s' if setting.latent > 1 else ''}, rate {setting.rate:g}, "
            f"batches of {setting.batch}, {setting.epochs:,} epochs; the notebook's one run has {setting.published}."
            f"\n\n{table_of(name)}"
            for name, setting in SETTINGS.items()
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
