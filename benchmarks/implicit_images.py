"""Fashion-MNIST and stacked digits by objectives that compare samples: one convolutional generator, many distances.

Each setting trains with a seed and is measured in the features of a classifier that is trained here first. Every
(data, setting, seed) appends a line to ``results/implicit_images.jsonl``; what is there is not run again. Draws of the
first seed are shown in ``docs/clothes.png``.

Run: ``python benchmarks/implicit_images.py [--data fashion paths stacked] [--settings NAME ...]
[--seeds 3] [--device cpu]``.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from matplotlib.figure import Figure
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
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d
from torch.optim import Adam

from pyrogen.data import PIXELS, Dataset, fashion_mnist, mnist_10k
from pyrogen.evaluation import coverage, frechet_distance, kernel_distance, precision_recall
from pyrogen.exhibits import decode
from pyrogen.inference import (
    DRAGAN,
    ELBO,
    GAN,
    R1,
    WGAN,
    Interpolated,
    MaximumLikelihood,
    Objective,
    implicit_entries,
    posterior_entries,
    train,
)  # fmt: skip
from pyrogen.inference.critics import Scaling, critic_for
from pyrogen.models import Classifier, dcgan, progressive_gan, vae
from pyrogen.nn import ConvolutionalEncoder
from pyrogen.sites import Program
from pyrogen.spec import DataSpec, Kind, scaled

ROWS = RESULTS / "implicit_images.jsonl"
CACHE = Path(__file__).parent.parent / "runs" / "implicit"
CHANNELS, FEW_CHANNELS, LATENT, BATCH, RATE = (32, 64), (16, 32), 64, 64, 5e-4
STEPS = {"fashion": 2500, "paths": 1500, "stacked": 2000}
FEATURES, COMPARED = 64, 5000
LABELS = 1000
SHOWN = 20

Programs = tuple[Program, Program | None]
Setting = Callable[[DataSpec], tuple[Programs, Objective]]


# Objectives


def adversarial(
    make: Callable[..., Objective], spec: DataSpec, channels: Sequence[int] = CHANNELS
) -> tuple[Programs, Objective]:
    programs = dcgan(spec, latent=LATENT, channels=channels)
    critic = critic_for(programs[0], False, (), None, "none")
    return programs, make(critic, transform=Scaling(spec))


def by_name(name: str, spec: DataSpec, **settings: Any) -> tuple[Programs, Objective]:
    programs = dcgan(spec, latent=LATENT, channels=CHANNELS)
    example = {"x": examples(fashion_mnist()) if len(spec.shape) == 3 else torch.zeros(0)}
    return programs, getattr(implicit_entries, name)(*programs, example, **settings)


def growing(spec: DataSpec) -> tuple[Programs, Objective]:
    """Three stages of 7, 14 and 28 pixels; a sixth of the rounds for each phase, and two sixths for the last."""
    programs = progressive_gan(spec, latent=LATENT, channels=(8, 16, 32), phase=STEPS["fashion"] // 6)
    critic = critic_for(programs[0], False, (), None, "none")
    return programs, GAN(critic, penalties=[R1(1.0)], transform=Scaling(spec))


def likelihood(spec: DataSpec) -> tuple[Programs, Objective]:
    programs = vae(spec, likelihood="discretized-logistic", latent=LATENT, network="convolutional", channels=CHANNELS)
    return programs, ELBO()


def inferring(entry: Callable[..., Objective], spec: DataSpec) -> tuple[Programs, Objective]:
    """A VAE's programs, for an objective with critics of latents."""
    programs = vae(spec, likelihood="laplace", latent=LATENT, network="convolutional", channels=CHANNELS)
    return programs, entry(*programs, {"x": torch.zeros(2, *spec.shape)})


GAMES = {
    "minimax": partial(GAN, game="minimax"),
    "non-saturating": partial(GAN, game="non-saturating"),
    "WGAN": WGAN,
}
PENALTIES = {"": [], " + GP": [Interpolated(10.0)], " + DRAGAN": [DRAGAN(10.0)]}
MANY_PATHS: dict[str, Setting] = {
    game + penalty: partial(adversarial, partial(make, penalties=terms), channels=FEW_CHANNELS)
    for (game, make), (penalty, terms) in product(GAMES.items(), PENALTIES.items())
}
MANY_PATHS["WGAN"] = partial(adversarial, partial(WGAN, clip=0.05), channels=FEW_CHANNELS)
HYBRIDS = {
    "ALI + R1": posterior_entries.ali,
    "VEEGAN + R1": posterior_entries.veegan,
    "α-GAN + R1": posterior_entries.alpha_gan,
}
BEST = "non-saturating + R1"
PROGRESSIVE = "non-saturating + R1, progressive"
RATES = {PROGRESSIVE: 5e-3}  # of weights that are of size one
SETTINGS: dict[str, dict[str, Setting]] = {
    "fashion": {
        BEST: partial(adversarial, partial(GAN, penalties=[R1(1.0)])),
        PROGRESSIVE: growing,
        "MMD": partial(by_name, "mmd"),
        "Sinkhorn": partial(by_name, "sinkhorn"),
        "VAE, by the ELBO": likelihood,
    },
    "paths": MANY_PATHS,
    "stacked": {
        BEST: partial(adversarial, partial(GAN, penalties=[R1(1.0)])),
        "non-saturating": partial(adversarial, GAN),
        **{name: partial(inferring, entry) for name, entry in HYBRIDS.items()},
    },
}


# Data and features


class Stacked:
    """Batches of three digits drawn at random, as the channels of one image, dequantised or not."""

    def __init__(self, digits: Tensor, dequantized: bool) -> None:
        self.digits, self.dequantized = digits, dequantized

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        while True:
            x = self.digits[torch.randint(len(self.digits), (BATCH, 3)), 0]
            yield (PIXELS["dequantized"].value(x, 256, None) if self.dequantized else x.float(),)


def examples(data: Dataset) -> Tensor:
    return data.eval_columns("train")["x"][:1000]


class Features(nn.Module):
    """A convolutional network whose last layer but one is a space to compare images in."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        assert spec.num_classes is not None
        self.features = nn.Sequential(ConvolutionalEncoder(spec.shape, FEATURES, (32, 64)), nn.ReLU())
        self.last = nn.Linear(FEATURES, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def trained_classifier(data: Dataset) -> tuple[Features, float]:
    """Return a classifier of the data and its test accuracy, from the cache or trained."""
    torch.manual_seed(0)
    network = Features(data.spec)
    path = CACHE / f"{data.name}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        steps = train(
            MaximumLikelihood(), Classifier(network, data.spec), None, data.batches(128), partial(Adam, lr=1e-3),
            epochs=4, validate=False,
        )  # fmt: skip
        with torch.enable_grad():
            for _ in steps:
                pass
        CACHE.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), path)
    test = data.eval_columns("test")
    with torch.no_grad():
        right = network(scaled(test["x"], data.spec)).argmax(1) == test["y"]
    return network, float(right.double().mean())


# Figures


def fashion_figures(draw: Callable[[int], Tensor], critic: nn.Module | None) -> dict[str, float]:
    """Compare draws with test images in features, and try the critic's features on a thousand labels."""
    data = fashion_mnist()
    network, _ = trained_classifier(data)
    with torch.no_grad():
        fake = network.features(scaled(draw(COMPARED), data.spec))
        real = network.features(scaled(data.eval_columns("test")["x"][:COMPARED], data.spec))
    precision, recall = precision_recall(real, fake)
    found = {
        "fid": frechet_distance(real, fake).value,
        "kid": kernel_distance(real, fake).value,
        "precision": precision,
        "recall": recall,
        "coverage": coverage(real, fake),
    }
    if critic is not None:
        found["svm"] = svm_accuracy(data, partial(pooled_activations, critic))
    return found


def pooled_activations(critic: nn.Module, x: Tensor) -> Tensor:
    """Return all convolutions' activations, max-pooled to 4 x 4 pixels, as in DCGAN's paper."""
    found = []
    with torch.no_grad():
        for layer in critic.convolutions:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(adaptive_max_pool2d(x, 4).flatten(1))
    return torch.cat(found, 1)


def svm_accuracy(data: Dataset, features: Callable[[Tensor], Tensor]) -> float:
    """Fit a linear SVM to a thousand labels; its constant is chosen by cross-validation among them."""
    few, test = data.eval_columns("train"), data.eval_columns("test")
    x, y = few["x"][:LABELS], few["y"][:LABELS]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), PCA(200, random_state=0), LinearSVC(max_iter=5000, random_state=0)),
        {"linearsvc__C": [1e-4, 1e-3, 1e-2, 1e-1]},
        cv=5,
    )
    search.fit(features(scaled(x, data.spec)).numpy(), y.numpy())
    return float(search.score(features(scaled(test["x"], data.spec)).numpy(), test["y"].numpy()))


def stacked_figures(draw: Callable[[int], Tensor], critic: nn.Module | None) -> dict[str, float]:
    """Count which of the thousand modes 26,000 draws show, and the divergence of their shares from uniform."""
    data = mnist_10k()
    network, _ = trained_classifier(data)
    with torch.no_grad():
        draws = (draw(1000) for _ in range(26))
        digits = torch.cat([network(scaled(x.reshape(-1, 1, 28, 28), data.spec)).argmax(1) for x in draws])
    return shares(digits.reshape(-1, 3))


def shares(digits: Tensor) -> dict[str, float]:
    counts = torch.bincount(digits @ torch.tensor([100, 10, 1]), minlength=1000).double()
    p = counts / counts.sum()
    return {"modes": float((counts > 0).sum()), "kl": float(torch.xlogy(p, p * 1000).sum())}


FIGURES = {"fashion": fashion_figures, "paths": fashion_figures, "stacked": stacked_figures}


def measure(name: str, setting: str, seed: int, device: str) -> dict[str, Any]:
    """Train with one seed on a device, and measure the averaged generator's draws on the CPU."""
    is_stacked, is_hybrid = name == "stacked", setting in HYBRIDS
    data = mnist_10k() if is_stacked else fashion_mnist()
    kind: Kind = "dequantized" if is_hybrid else "levels"
    spec = DataSpec((3, 28, 28), kind, levels=256, name="stacked") if is_stacked else data.spec
    torch.manual_seed(seed)
    (model, guide), objective = SETTINGS[name][setting](spec)
    batches = Stacked(data.train["x"], is_hybrid) if is_stacked else data.batches(BATCH, only=["x"], drop_last=True)
    modules = [module.to(device) for module in (model, guide, objective) if module is not None]
    has_critic = any(p.requires_grad for p in objective.parameters())
    adam = partial(Adam, lr=RATES.get(setting, RATE), betas=(0.5, 0.99))
    start = time.perf_counter()
    training = train(
        objective, model, guide, batches, adam, adam if has_critic else None, num_steps=STEPS[name], ema=0.995,
        validate=False, compile=True,
    )  # fmt: skip
    for _ in training:
        pass
    seconds = time.perf_counter() - start

    def draw(size: int) -> Tensor:
        if guide is not None:
            made = decode(model, torch.randn(size, LATENT))
            return made.clamp(0, 1) * 255 if is_hybrid else made
        return model(size=size).clamp(0, 255)  # as a picture shows it

    torch.manual_seed(seed)
    with training.averaged(), torch.no_grad():
        for module in modules:
            module.cpu().eval()
        figures = FIGURES[name](draw, objective.critic.network if setting == BEST else None)
        if seed == 0:
            save_file({"x": draw(SHOWN).contiguous()}, CACHE / f"{name}, {setting}.safetensors")
    row = {"data": name, "setting": setting, "seed": seed, "steps": STEPS[name], "device": device_name(device)}
    timed = {"seconds": seconds} if device == "cpu" else {}
    return row | timed | {key: float(value) for key, value in figures.items()}


# The page


def cell(rows: list[dict[str, Any]], figure: str, digits: int, factor: float = 1.0) -> str:
    """Write the mean and standard error of a figure over seeds."""
    values = [factor * row[figure] for row in rows if figure in row]
    return mean_cell(values, digits) if values else "–"


def references() -> tuple[list[str], str]:
    """Return the figures of training images in the draws' place, and of pixels in the critic's."""
    data = fashion_mnist()
    _, accuracy = trained_classifier(data)
    found = fashion_figures(lambda size: data.eval_columns("train")["x"][:size], None)
    pixels = svm_accuracy(data, lambda x: x.flatten(1))
    line = ["*training images*", "", f"{found['fid']:.2f}", f"{found['kid']:.1f}"]
    line += [f"{found[key]:.3f}" for key in ("precision", "recall", "coverage")]
    return [*line, f"pixels: {100 * pixels:.1f}", ""], f"{accuracy:.1%}"


def perfect() -> str:
    """Return the divergence of 26,000 stacks of the data's own labels."""
    torch.manual_seed(0)
    labels = mnist_10k().train["y"]
    values = [shares(labels[torch.randint(len(labels), (26_000, 3))])["kl"] for _ in range(20)]
    return f"{mean(values):.3f}"


def strips(rows: Sequence[tuple[str, Tensor]], top: float, name: str) -> None:
    """Show rows of images from 0 to ``top``, each beside its name, in a picture of the documentation."""
    figure = Figure(figsize=(9, 0.52 * len(rows)), layout="constrained")
    for axes, (label, x) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        axes.imshow(torch.cat(list(x[:, 0]), 1), cmap="gray_r", vmin=0, vmax=top)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        axes.spines[:].set_visible(False)
    figure.savefig(Path(__file__).parent.parent / "docs" / name, dpi=110)


def draw_figure() -> None:
    """Show draws of the settings whose first seed has run."""
    places = [(data, name, CACHE / f"{data}, {name}.safetensors") for data in SETTINGS for name in SETTINGS[data]]
    shown = [(name, path) for data, name, path in places if data != "stacked" and path.exists()]
    strips([(name, load_file(path)["x"].clamp(0, 255)) for name, path in shown], 255, "clothes.png")


def report() -> None:
    """Write what has been measured."""
    rows = read_rows(ROWS)

    def of(data: str, setting: str) -> list[dict[str, Any]]:
        return [row for row in rows if (row["data"], row["setting"]) == (data, setting)]

    reference, accuracy = references()
    _, of_digits = trained_classifier(mnist_10k())
    num_seeds = min(len(of("paths", name)) for name in MANY_PATHS)
    head = ["objective", "seeds", "FID", "KID", "precision", "recall", "coverage", "SVM, %", "seconds"]
    lines = [
        [
            setting, str(len(found)), cell(found, "fid", 2), cell(found, "kid", 1),
            *(cell(found, key, 3) for key in ("precision", "recall", "coverage")), cell(found, "svm", 1, 100),
            cell(found, "seconds", 0),
        ]
        for setting in SETTINGS["fashion"]
        if (found := of("fashion", setting))
    ]  # fmt: skip
    paths = [[game, *(cell(of("paths", game + penalty), "fid", 2) for penalty in PENALTIES)] for game in GAMES]
    stacked = [
        [setting, str(len(found)), cell(found, "modes", 1), cell(found, "kl", 3), cell(found, "seconds", 0)]
        for setting in SETTINGS["stacked"]
        if (found := of("stacked", setting))
    ]
    write(
        "implicit_images",
        header("Images by objectives that compare samples", "make bench-implicit-images", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl", "geomloss", "scikit-learn")),
        f"DCGAN's generator and critic with {CHANNELS[0]} and {CHANNELS[1]} channels, {LATENT} latent variables, "
        f"batches of {BATCH}, Adam at {RATE:g} with betas (.5, .99), a moving average at .995 of the generator's "
        f"parameters, {STEPS['fashion']:,} rounds of one step for each player. The progressive networks have 8, 16 "
        f"and 32 channels at 28, 14 and 7 pixels, and a rate of {RATES[PROGRESSIVE]:g}. The VAE has the channels of "
        f"DCGAN, and is shown by the means of p(x | z). Mean ± standard error over seeds. Fitted "
        f"on: {devices(rows)}; seconds are of fits on the CPU.",
        "## Fashion-MNIST",
        f"{COMPARED:,} draws against as many test images, in the {FEATURES} features of a convolutional classifier "
        f"that the benchmark trains (test accuracy {accuracy}): figures cannot be compared with those of other "
        f"features. Precision and recall are those of Kynkäänniemi et al. with three neighbours, coverage that of "
        f"Naeem et al. with five. SVM: test accuracy of a linear SVM with {LABELS:,} labels, in 200 principal "
        f"components of the critic's activations, or of pixels. Seconds include compilation, for each stage of the "
        f"progressive networks, on a machine that had other work.",
        table(head, [reference, *lines]),
        "## Many paths to equilibrium, in small",
        f"Networks of {FEW_CHANNELS[0]} and {FEW_CHANNELS[1]} channels, {STEPS['paths']:,} rounds; seeds: {num_seeds}. "
        f"FID of each game with each penalty (the Wasserstein critic without one has its weights clipped to .05). "
        f"After Fedus et al., https://arxiv.org/abs/1710.08446.",
        table(["game", "none", "GP", "DRAGAN"], paths),
        "## Stacked digits",
        f"Three random ones of 8,000 digits as channels: a thousand modes. {STEPS['stacked']:,} rounds. Of 26,000 "
        f"draws, each channel is named by a classifier (test accuracy {of_digits:.1%}): how many modes there are, and "
        f"the divergence of their shares from uniform, in nats ({perfect()} for the data's own labels). ALI, VEEGAN "
        f"and α-GAN train the VAE's networks with a Laplace likelihood, and show its means. Published, on "
        f"all of MNIST: VEEGAN 150 / 2.95, DCGAN 99 / 3.40 (its table, https://arxiv.org/abs/1705.07761) and 78.9 / "
        f"4.50, PacDCGAN2 1000 / .06 (PacGAN's, https://arxiv.org/abs/1712.04086).",
        table(["objective", "seeds", "modes of 1000", "KL", "seconds"], stacked),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--settings", nargs="+", default=None, help="of the data (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda, to fit on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed, data in product(range(options.seeds), options.data):
        settings = [name for name in SETTINGS[data] if options.settings is None or name in options.settings]
        for task in missing(ROWS, data=[data], setting=settings, seed=[seed]):
            append_row(ROWS, measure(data, task["setting"], seed, options.device))
    draw_figure()
    report()


if __name__ == "__main__":
    main()
