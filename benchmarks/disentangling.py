"""Disentangling: which bounds give each factor that images are made of a latent variable of its own.

Every (setting, seed) appends a line to ``results/disentangling.jsonl``; what is there is not run again. Each method has
two strengths, of which none is chosen; all else was chosen on seeds from 100 on, which have a table of their own.

Run: ``python benchmarks/disentangling.py [--settings NAME ...] [--seeds 0 1 ...] [--device cpu]``.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyro.distributions import TorchDistribution
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.optim import Adam

from pyrogen.data import Batches, Factors, draw_factors, render
from pyrogen.evaluation import (
    active_units,
    attribute_predictability,
    beta_vae_score,
    dci,
    elbo,
    encode,
    evaluating,
    factor_vae_score,
    levels_of,
    mutual_information_gap,
)
from pyrogen.exhibits import decode
from pyrogen.inference import ELBO, BetaTCVAE, FactorVAE, Objective, train
from pyrogen.models import VAE, vae
from pyrogen.models.encoder import Encoder
from pyrogen.models.likelihood import Likelihood
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec

ROWS = RESULTS / "disentangling.jsonl"
DRAWN = Path(__file__).parent.parent / "runs" / "disentangling"
SEEDS, TRIALS = range(10), 100
NUM_DATA, HELD_OUT, LEVELS = 20_000, 10_000, 10
LATENT, HIDDEN, CRITIC, BATCH, RATE, STEPS = 10, (128, 128), (128, 128), 64, 1e-3, 10_000
SPEC, SCALE = DataSpec((1, 16, 16), "real"), 0.1
COLUMNS, EXTENT = 8, 2.0


class FixedScale(Likelihood):
    """A normal distribution around the network's output, with the same scale for every pixel."""

    kinds = ("real",)

    def distribution(self, features: Tensor) -> TorchDistribution:
        return dist.Normal(self._parts(features)[0], SCALE)


def factor_vae(gamma: float) -> Objective:
    return FactorVAE(MLP(LATENT, 1, CRITIC, partial(nn.LeakyReLU, 0.2)), gamma)


SETTINGS: dict[str, Callable[[], Objective]] = {
    "VAE": ELBO,
    "beta-VAE 8": partial(ELBO, beta=8.0),
    "beta-VAE 16": partial(ELBO, beta=16.0),
    "FactorVAE 10": partial(factor_vae, 10.0),
    "FactorVAE 30": partial(factor_vae, 30.0),
    "beta-TCVAE 8": partial(BetaTCVAE, beta=8.0, num_data=NUM_DATA),
    "beta-TCVAE 16": partial(BetaTCVAE, beta=16.0, num_data=NUM_DATA),
}
"""Objectives by name, with the strength."""

FIGURES = {
    "mig": ("MIG", 2),
    "disentanglement": ("DCI, disentangled", 2),
    "completeness": ("complete", 2),
    "informativeness": ("informative", 2),
    "sap": ("SAP", 2),
    "beta_vae": ("beta-VAE score", 2),
    "factor_vae": ("FactorVAE score", 2),
    "active": ("active units", 1),
    "elbo": ("ELBO, nats", 2),
    "reconstruction": ("of data", 2),
    "rate": ("KL", 2),
}
"""What is measured: a title, and how many decimals are shown."""


def images(factors: Factors) -> Tensor:
    """Paint images, black at one and white at zero."""
    return torch.from_numpy(render(factors))[:, None].float() / 255


def levels(factors: Factors) -> NDArray[np.int64]:
    """Sort continuous factors into bins; kinds are levels already."""
    return np.stack([values if values.dtype.kind == "i" else levels_of(values, LEVELS) for values in factors], 1)


def drawn(seed: int) -> tuple[Factors, Factors]:
    """Draw factors of images to learn from, and of others to judge by."""
    factors = draw_factors(NUM_DATA + HELD_OUT, seed)
    return Factors(*(values[:NUM_DATA] for values in factors)), Factors(*(values[NUM_DATA:] for values in factors))


def fit(setting: str, seen: Factors, device: str) -> tuple[VAE, Encoder]:
    """Train on images."""
    model, guide = vae(SPEC, latent=LATENT, hidden=HIDDEN)
    model = VAE(model.decoder, FixedScale(SPEC), LATENT)
    objective = SETTINGS[setting]()
    for module in (model, guide, objective):
        module.to(device)
    batches = Batches({"x": images(seen)}, BATCH, drop_last=True)
    adam = partial(Adam, lr=RATE)
    critic = adam if isinstance(objective, FactorVAE) else None
    for _ in train(objective, model, guide, batches, adam, critic, num_steps=STEPS, validate=False, compile=True):
        pass
    return model, guide


def measure(setting: str, seed: int, device: str) -> dict[str, float]:
    """Fit, and score posterior means of held-out images; draw traversals of the first seed's fits."""
    pyro.set_rng_seed(seed)
    seen, held_out = drawn(seed)
    model, guide = fit(setting, seen, device)
    x = images(held_out)
    batches = Batches({"x": x}, 1000, shuffle=False)
    codes = encode(guide, batches, num_draws=100)
    means, known = codes.mean.numpy(), levels(held_out)
    bound, rate = elbo(model, guide, batches).value, divergence(model, guide, x.to(device))
    if seed == SEEDS[0]:
        keep_traversals(setting, model, guide, x[:1].to(device), codes.variance.mean(0))
    return {
        "mig": mutual_information_gap(means, known),
        **dci(means, known)._asdict(),
        "sap": attribute_predictability(means, known),
        "beta_vae": beta_vae_score(means, known),
        "factor_vae": factor_vae_score(means, known),
        "active": active_units(codes),
        "elbo": bound,
        "reconstruction": bound + rate,
        "rate": rate,
    }


def divergence(model: VAE, guide: Encoder, x: Tensor) -> float:
    """Average the guide's divergence from the prior over data, in nats."""
    with evaluating(model, guide):
        return float(kl_divergence(guide.posterior(x), model.prior()).mean())


def keep_traversals(setting: str, model: VAE, guide: Encoder, x: Tensor, variance: Tensor) -> None:
    """Keep images in which one of the five latents that know most of the data goes from end to end."""
    with evaluating(model, guide):
        rows = guide.posterior(x).mean.repeat(5, COLUMNS, 1)
        for row, dim in zip(rows, variance.argsort()[:5].tolist(), strict=True):
            row[:, dim] = torch.linspace(-EXTENT, EXTENT, COLUMNS, device=row.device)
        shown = decode(model, rows.flatten(0, 1))
    DRAWN.mkdir(parents=True, exist_ok=True)
    save_file({"x": shown.cpu().unflatten(0, (5, COLUMNS))}, DRAWN / f"{setting}.safetensors")


def draw_figure() -> None:
    """Show the traversals of the first seed's fits side by side."""
    names = [name for name in SETTINGS if (DRAWN / f"{name}.safetensors").exists()]
    if not names:
        return
    figure = Figure(figsize=(2.6 * len(names), 1.9), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        x = load_file(DRAWN / f"{name}.safetensors")["x"].squeeze(2)
        axes.imshow(x.transpose(1, 2).flatten(2).flatten(0, 1), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9, loc="left")
    figure.savefig(Path(__file__).parent.parent / "docs" / "traversals.png", dpi=100)


def quartiles(values: list[float], digits: int) -> str:
    """Write the first quartile, the median and the third quartile."""
    return " / ".join(f"{value:.{digits}f}" for value in np.quantile(values, [0.25, 0.5, 0.75]))


def table_of(rows: list[dict[str, Any]], cell: Callable[[list[float], int], str]) -> str:
    """Lay figures out, a line for each setting that has been measured."""
    lines = []
    for setting in SETTINGS:
        found = [row for row in rows if row["setting"] == setting]
        if found:
            cells = [cell([row[key] for row in found], digits) for key, (_, digits) in FIGURES.items()]
            lines.append([setting, str(len(found)), *cells])
    return table(["", "seeds", *(title for title, _ in FIGURES.values())], lines)


def ratio_to_vae(rows: list[dict[str, Any]]) -> str:
    """Say how many times the VAE's gap the others have."""
    gaps = {name: [row["mig"] for row in rows if row["setting"] == name] for name in SETTINGS}
    if not gaps["VAE"]:
        return "The VAE has not been measured yet."
    found = {name: values for name, values in gaps.items() if values and name != "VAE"}
    ratios = (f"{name}: {mean(values) / mean(gaps['VAE']):.1f}" for name, values in found.items())
    return f"Mean MIG over that of the VAE: {'; '.join(ratios)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in missing(ROWS, seed=options.seeds, setting=options.settings):
        start = time.process_time()
        figures = measure(task["setting"], task["seed"], options.device)
        append_row(
            ROWS, task | figures | {"seconds": time.process_time() - start, "device": device_name(options.device)}
        )
    draw_figure()
    write_table(read_rows(ROWS))


def write_table(every: list[dict[str, Any]]) -> None:
    rows = [row for row in every if row["seed"] < TRIALS]
    trials = [row for row in every if row["seed"] >= TRIALS]
    if not rows:
        return
    write(
        "disentangling",
        header("Disentangling", "make bench-disentangling", 1,
               versions("torch", "pyro-ppl", "scikit-learn", "pyrogen-ppl")),
        f"After beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl, FactorVAE (Kim and Mnih, "
        f"2018), https://arxiv.org/abs/1802.05983, and beta-TCVAE (Chen et al., 2018), "
        f"https://arxiv.org/abs/1802.04942. Images of 16 x 16 pixels (`pyrogen.data.draw_factors`, `render`) of five "
        f"independent factors: disc or square, solid or hollow, radius, and the middle's two coordinates. The "
        f"likelihood is normal around each pixel's grey, from 0 to 1, with a scale of {SCALE:g}; a beta-VAE is a VAE "
        f"with one of {SCALE:g} √beta. {NUM_DATA:,} to learn from, {STEPS:,} steps of {BATCH}, Adam at {RATE:g}; "
        f"{LATENT} latent variables, two hidden layers of {HIDDEN[0]}, as many in the critic. The number after a "
        f"method is its strength, beta or gamma: all are shown, and the rest was chosen on seeds from {TRIALS} on. The "
        f"seed draws the data, the networks and the batches. The scale is so small that a VAE uses more latents "
        f"than there are factors; in trials with binarised pixels it used as many, and its MIG was nearer the others'.",
        f"Of {HELD_OUT:,} held-out images; codes are posterior means, continuous factors are cut into {LEVELS} levels. "
        f"The ELBO (beta = 1) is what is reconstructed, less the KL. Mean ± standard error over seeds. Fitted on: "
        f"{devices(rows)}.",
        table_of(rows, mean_cell),
        ratio_to_vae(rows),
        "First quartile / median / third quartile over seeds:",
        table_of(rows, quartiles),
        *(["## Trials", f"Of seeds from {TRIALS} on:", table_of(trials, mean_cell)] if trials else []),
    )  # fmt: skip


if __name__ == "__main__":
    main()
