"""Fashion-MNIST by one decoder under many objectives: who matches the latents, who matches the data, who infers?

Distribution Matching in Variational Inference, in small. Each method trains the same networks with a seed. Every
(method, seed) appends a line to ``results/distribution_matching.jsonl``; what is there is not run again. Draws and
reconstructions of the last seed are shown in ``docs/matching.png``.

Run: ``python benchmarks/distribution_matching.py [--methods NAME ...] [--seeds 3] [--device cpu]``.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from implicit_images import FEATURES, strips, trained_classifier
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
from torch.distributions import Normal
from torch.optim import Adam

from pyrogen.data import Batches, Dataset, fashion_mnist
from pyrogen.evaluation import critic_distance, elbo, frechet_distance, iwae
from pyrogen.exhibits import decode
from pyrogen.inference import ELBO, WGAN, Interpolated, Objective, Ratio, posterior_entries, train
from pyrogen.inference.critics import Scaling, critic_for
from pyrogen.models import VAE, Generator, vae
from pyrogen.models.encoder import Encoder
from pyrogen.nn import MLP, DCGANCritic
from pyrogen.sites import Program
from pyrogen.spec import scaled

ROWS = RESULTS / "distribution_matching.jsonl"
DRAWN = Path(__file__).parent.parent / "runs" / "distribution_matching"
LATENT, CHANNELS, BATCH, STEPS, RATE, EMA = 16, (32, 64), 64, 2500, 5e-4, 0.995
BOUNDED, PARTICLES = 1000, 500
COMPARED, CODES = 5000, 2000
CRITIC_STEPS, RATIO_STEPS = 600, 2000
SHOWN = 20


class Mean(nn.Module):
    """The mean of p(x | z), in [-1, 1]."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.decoder, self.likelihood = model.decoder, model.likelihood

    def forward(self, z: Tensor) -> Tensor:
        return scaled(self.likelihood(self.decoder(z)).mean, self.likelihood.spec)


class Method(NamedTuple):
    """An objective of a model, and how it is trained.

    Attributes:
        objective: made for a model, a guide and a few data.
        encoder: of the guide.
        steps: of the programs and of the critic in a round.
        infers: whether there is a guide; without one, the model is the implicit one of the decoder's means.
    """

    objective: Callable[[Program, Program | None, dict[str, Tensor]], Objective]
    encoder: str = "gaussian"
    steps: tuple[int, int] = (1, 1)
    infers: bool = True


def wgan(model: Program, guide: Program | None, example: dict[str, Tensor]) -> WGAN:
    critic = critic_for(model, False, (), CHANNELS, "none")
    return WGAN(critic, [Interpolated(10.0)], transform=Scaling(model.spec))  # type: ignore[attr-defined]


METHODS = {
    "VAE": Method(lambda *_: ELBO()),
    "AVB": Method(posterior_entries.avb, "implicit", (1, 2)),
    "AAE": Method(posterior_entries.aae),
    "α-GAN": Method(posterior_entries.alpha_gan),
    "VEEGAN": Method(posterior_entries.veegan),
    "ALI": Method(posterior_entries.ali),
    "WGAN-GP": Method(wgan, steps=(1, 5), infers=False),
}


# Figures


def kl_by_densities(guide: Encoder, x: Tensor) -> float:
    """Estimate KL(q(z) || p(z)) for the aggregate of all data's normal posteriors, from draws of some."""
    posterior = guide.posterior(x).base_dist  # type: ignore[attr-defined]
    z = posterior.sample()[torch.randperm(len(x))[:CODES]]
    log_q = torch.cat([
        Normal(posterior.loc, posterior.scale).log_prob(some.unsqueeze(1)).sum(-1).logsumexp(1)
        for some in z.split(100)
    ]) - math.log(len(x))  # fmt: skip
    return float((log_q - Normal(0.0, 1.0).log_prob(z).sum(1)).mean())


def kl_by_classifier(z: Tensor) -> float:
    """Estimate KL(q(z) || p(z)) by a critic that is learned of one half of the codes, on the other: too low."""
    learned, held_out = z.chunk(2)
    ratio = Ratio(MLP(LATENT, 1, (256, 256)))
    optimizer = Adam(ratio.parameters(), lr=1e-3, weight_decay=1e-4)
    with torch.enable_grad():
        for _ in range(RATIO_STEPS):
            some = learned[torch.randint(len(learned), (256,))]
            optimizer.zero_grad()
            ratio.loss([some], [torch.randn_like(some)]).backward()
            optimizer.step()
    return float(ratio([held_out]).mean())


def figures_of_draws(draws: Tensor, data: Dataset) -> dict[str, float]:
    """Compare draws with test images, both in the unit interval."""
    network, _ = trained_classifier(fashion_mnist())
    real, fake = (scaled(x, data.spec) for x in (data.eval_columns("test")["x"][: 2 * COMPARED], draws))
    of_real, of_fake = (network.features(x[:COMPARED]) for x in (real, fake))
    critic = DCGANCritic(real.shape[1:], CHANNELS, "none")
    distance = critic_distance(real, fake, critic, CRITIC_STEPS, BATCH)
    return {"fid": frechet_distance(of_real, of_fake).value, "distance": distance.value}


def figures_of_guide(method: Method, model: VAE, guide: Encoder, data: Dataset) -> dict[str, float]:
    """Bound the likelihood, compare aggregate posterior and prior, and see what comes back of test images."""
    x = data.eval_columns("test")["x"]
    few = Batches({"x": x[:BOUNDED]}, 250, shuffle=False, only=["x"])
    bounds = {"iwae": iwae(model, guide, few, PARTICLES, propose=True)}
    if method.encoder == "gaussian":
        bounds |= {"elbo": elbo(model, guide, few, 10), "own_iwae": iwae(model, guide, few, PARTICLES)}
    found = {name: bound.in_bits_per_dim(data.spec).value for name, bound in bounds.items()}
    if method.encoder == "gaussian":
        found["kl"] = kl_by_densities(guide, x)
    z = guide(x)
    found["kl_by_classifier"] = kl_by_classifier(z)
    back = decode(model, z).clamp(0, 1)
    return found | {"error": float((back - x).square().mean().sqrt())}


def measure(method: str, seed: int, device: str) -> dict[str, Any]:
    """Train with one seed on a device, and measure the averaged programs on the CPU."""
    how = METHODS[method]
    data = fashion_mnist(pixels="dequantized")
    torch.manual_seed(seed)
    model, guide = vae(
        data.spec, likelihood="laplace", latent=LATENT, network="convolutional", channels=CHANNELS,
        encoder=how.encoder,  # type: ignore[arg-type]
    )  # fmt: skip
    trained = model if how.infers else Generator(Mean(model), data.spec, LATENT)
    objective = how.objective(trained, guide, {"x": data.eval_columns("train")["x"][:BATCH]})
    modules = [module.to(device) for module in (trained, guide, objective)]
    has_critic = any(p.requires_grad for p in objective.parameters())
    adam = partial(Adam, lr=RATE, betas=(0.5, 0.99))
    start = time.perf_counter()
    training = train(
        objective, trained, guide if how.infers else None, data.batches(BATCH, only=["x"], drop_last=True), adam,
        adam if has_critic else None, steps=how.steps, num_steps=STEPS, ema=EMA, validate=False, compile=True,
    )  # fmt: skip
    for _ in training:
        pass
    seconds = time.perf_counter() - start
    torch.manual_seed(seed)
    with training.averaged(), torch.no_grad():
        for module in modules:
            module.cpu().eval()
        draws = decode(model, torch.randn(2 * COMPARED, LATENT)).clamp(0, 1)
        figures = figures_of_draws(draws, data)
        if how.infers:
            figures |= figures_of_guide(how, model, guide, data)
        shown = {"draws": draws[:SHOWN].contiguous()}
        if how.infers:
            shown["data"] = data.eval_columns("test")["x"][:SHOWN].contiguous()
            shown["back"] = decode(model, guide(shown["data"])).clamp(0, 1).contiguous()
        DRAWN.mkdir(parents=True, exist_ok=True)
        save_file(shown, DRAWN / f"{method}.safetensors")
    timed = {"seconds": seconds} if device == "cpu" else {}
    return {"method": method, "seed": seed, "device": device_name(device)} | timed | figures


# The page


def draw_figure() -> None:
    """Show draws of each method, and what comes back of test images."""
    names = [name for name in METHODS if (DRAWN / f"{name}.safetensors").exists()]
    if not names:
        return
    kept = {name: load_file(DRAWN / f"{name}.safetensors") for name in names}
    rows = [(f"{name}: draws", of["draws"]) for name, of in kept.items()]
    rows += [("data", of["data"]) for of in kept.values() if "data" in of][:1]
    rows += [(f"{name}: comes back", of["back"]) for name, of in kept.items() if "back" in of]
    strips(rows, 1.0, "matching.png")


def of_training_images() -> list[str]:
    """Return the figures of training images in the draws' place."""
    data = fashion_mnist(pixels="dequantized")
    torch.manual_seed(0)
    with torch.no_grad():
        found = figures_of_draws(data.eval_columns("train")["x"][: 2 * COMPARED], data)
    return ["*training images*", *[""] * 6, f"{found['distance']:.2f}", f"{found['fid']:.1f}", "", ""]


COLUMNS = {
    "elbo": ("ELBO, bits/dim", 3),
    "own_iwae": ("IWAE, bits/dim", 3),
    "iwae": ("IWAE, moments", 3),
    "kl": ("KL, densities", 2),
    "kl_by_classifier": ("KL, classifier", 2),
    "distance": ("Wasserstein", 2),
    "fid": ("FID", 1),
    "error": ("error", 3),
    "seconds": ("seconds", 0),
}


def write_table() -> None:
    """Write what all rows say."""
    rows = read_rows(ROWS)
    lines = []
    for method in METHODS:
        found = [row for row in rows if row["method"] == method]
        cells = [
            mean_cell(values, digits) if (values := [row[key] for row in found if key in row]) else "–"
            for key, (_, digits) in COLUMNS.items()
        ]
        if found:
            lines.append([method, str(len(found)), *cells])
    write(
        "distribution_matching",
        header("Matching distributions: Fashion-MNIST by one decoder", "make bench-adversarial", 1,
               versions("torch", "pyro-ppl", "pyrogen-ppl")),
        f"After Distribution Matching in Variational Inference (Rosca et al., 2018), https://arxiv.org/abs/1802.06847. "
        f"One convolutional decoder ({CHANNELS[0]} and {CHANNELS[1]} channels, {LATENT} latents, Laplace likelihood of "
        f"dequantised pixels) and encoder (normal; for AVB with noise as input), critics that mirror them, batches of "
        f"{BATCH}, {STEPS:,} rounds, Adam at {RATE:g} with betas (.5, .99), parameters averaged at {EMA}; a round is a "
        f"step of each player, with two of AVB's critic and five of WGAN-GP's. All on test images; mean ± standard "
        f"error over seeds. Objectives are those of the command line, with their settings: ALI, VEEGAN and α-GAN have "
        f"an R1 penalty, VEEGAN's reconstruction weighs .05, chosen by draws on the same training data, α-GAN's .1. "
        f"Fitted on: {devices(rows)}; seconds are of fits on the CPU.",
        f"- ELBO and IWAE ({PARTICLES} draws): {BOUNDED:,} images, in bits per dimension, lower is better; IWAE with "
        f"the guide, or with a Student's t of the moments of its draws, which a guide without density has alone.\n"
        f"- KL(q(z) ‖ p(z)) in nats: by the densities of all posteriors, and by a classifier of latents on held-out "
        f"codes, which is an underestimate.\n"
        f"- Wasserstein: by an independent critic with a gradient penalty, {CRITIC_STEPS} steps, on held-out images "
        f"and draws. FID: {COMPARED:,} draws in {FEATURES} features of a classifier, as in `implicit_images.md`. Draws "
        f"are the means of p(x | z).\n"
        f"- error: of what comes back of an image, root mean square, pixels from 0 to 1.",
        table(["method", "seeds", *(name for name, _ in COLUMNS.values())], [of_training_images(), *lines]),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="cpu", help="cpu or cuda, to fit on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in missing(ROWS, seed=options.seeds, method=options.methods):
        append_row(ROWS, measure(**task, device=options.device))
    draw_figure()
    write_table()


if __name__ == "__main__":
    main()
