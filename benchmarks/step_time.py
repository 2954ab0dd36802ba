"""Milliseconds a training step of a variational autoencoder, by Pyro, pyrogen, hand-written torch, and NumPyro.

Every contestant takes the same step: the loss of ``Trace_ELBO`` with one particle (no closed-form divergence), its
gradient, and Adam. Before anything is timed, ``check`` refuses a contestant that does something else. Contestants take
turns within a round, so that whatever else the machine does meets all of them; ratios are taken within a round. Time
is the processor's, which on one thread is the wall's less what other programs take.

Run: ``python benchmarks/step_time.py [--rounds 11] [--configurations 400/128 64/64 16/16]``.
"""

import argparse
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, stdev
from typing import NamedTuple, Protocol

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from report import header, table, versions, write
from rounds import Timed, ratio, take_turns
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from workers import ONE_THREAD, Worker, numpyro_python

from pyrogen.inference import ELBO, train

PIXELS, LATENT, LEARNING_RATE = 784, 20, 1e-3


class Networks(nn.Module):
    """Encoder and decoder, and the Pyro programs made of them; ``name`` keeps Pyro's global store in order."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.name = ""
        self.encoder = nn.Sequential(nn.Linear(PIXELS, hidden), nn.Softplus(), nn.Linear(hidden, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, hidden), nn.Softplus(), nn.Linear(hidden, PIXELS))

    def model(self, x: Tensor) -> None:
        pyro.module(f"{self.name}.decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module(f"{self.name}.encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def loss(self, x: Tensor) -> Tensor:
        r"""Write :math:`-\log p(x \mid z) - \log p(z) + \log q(z \mid x)` by hand; constants of the normals cancel."""
        loc, log_scale = self.encoder(x).chunk(2, -1)
        noise = torch.randn_like(loc)
        z = loc + log_scale.exp() * noise
        reconstruction = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return reconstruction + (0.5 * (z * z - noise * noise) - log_scale).sum()


Step = Callable[[], Tensor | float]
"""Takes one training step and returns the loss before it."""


def pyro_svi(networks: Networks, x: Tensor, elbo: Trace_ELBO, validate: bool = True) -> Step:
    svi = SVI(networks.model, networks.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), elbo)

    def step() -> float:
        with pyro.validation_enabled(validate):
            return svi.step(x)

    return (lambda: svi.step(x)) if validate else step


def pyrogen_train(networks: Networks, x: Tensor, validate: bool, **adam: bool) -> Step:
    training = train(
        ELBO(analytic_kl=False),
        networks.model,
        networks.guide,
        repeat(x),
        lambda parameters: torch.optim.Adam(parameters, lr=LEARNING_RATE, **adam),
        validate=validate,
    )
    return lambda: next(training).loss


def hand_written(networks: Networks, x: Tensor, **adam: bool) -> Step:
    optimizer = torch.optim.Adam(networks.parameters(), lr=LEARNING_RATE, **adam)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = networks.loss(x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def hand_compiled(networks: Networks, x: Tensor) -> Step:
    optimizer = torch.optim.Adam(networks.parameters(), lr=torch.tensor(LEARNING_RATE))
    compute = torch.compile(networks.loss, fullgraph=True, dynamic=False)
    update = torch.compile(optimizer.step)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = compute(x)
        loss.backward()
        update()
        return loss.detach()

    return step


BASELINE, HAND, COMPILED, JAX = "Pyro SVI", "torch by hand", "torch.compile by hand", "NumPyro jit"
TORCH: dict[str, Callable[[Networks, Tensor], Step]] = {
    BASELINE: lambda networks, x: pyro_svi(networks, x, Trace_ELBO()),
    "Pyro SVI, validation off": lambda networks, x: pyro_svi(networks, x, Trace_ELBO(), validate=False),
    "Pyro JitTrace_ELBO": lambda networks, x: pyro_svi(networks, x, JitTrace_ELBO(ignore_jit_warnings=True)),
    "pyrogen": lambda networks, x: pyrogen_train(networks, x, validate=True),
    "pyrogen, validate=False": lambda networks, x: pyrogen_train(networks, x, validate=False),
    "pyrogen, validate=False, fused Adam": lambda networks, x: pyrogen_train(networks, x, False, fused=True),
    HAND: hand_written,
    "torch by hand, fused Adam": lambda networks, x: hand_written(networks, x, fused=True),
    COMPILED: hand_compiled,
}


class Contestant(Timed, Protocol):
    def loss(self, draws: int) -> tuple[float, float]:
        """Estimate the expected loss at the present parameters: mean and standard error."""


class Torch:
    """A contestant of this process, on a copy of the networks."""

    def __init__(self, name: str, networks: Networks, x: Tensor) -> None:
        self.networks, self.x = deepcopy(networks), x
        self.networks.name = name.replace(" ", "_").replace(".", "_")
        self.step = TORCH[name](self.networks, x)

    def seconds(self, steps: int) -> float:
        start = time.process_time()
        for _ in range(steps):
            self.step()
        return time.process_time() - start

    def loss(self, draws: int) -> tuple[float, float]:
        with torch.no_grad():
            return estimate([float(self.networks.loss(self.x)) for _ in range(draws)])

    def losses_at(self, networks: Networks, seeds: range) -> list[float]:
        """Return the losses of steps that all start at the same parameters."""
        found = []
        for seed in seeds:
            self.networks.load_state_dict(networks.state_dict())
            torch.manual_seed(seed)
            found.append(float(self.step()))
        return found


class NumPyro:
    """A contestant in a process and an environment of its own."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def seconds(self, steps: int) -> float:
        return self.worker.ask(f"run {steps}")["processor"]

    def loss(self, draws: int) -> tuple[float, float]:
        answer = self.worker.ask(f"loss {draws}")
        return answer["mean"], answer["stderr"]

    def refuse_threads(self) -> None:
        """Refuse a process that computes on more than one processor at a time."""
        answer = self.worker.ask("run 200")
        if answer["processor"] > 1.2 * answer["wall"]:
            raise SystemExit(f"{JAX} uses {answer['processor'] / answer['wall']:.1f} threads, the others one")


@contextmanager
def numpyro(python: Path, networks: Networks, x: Tensor) -> Iterator[Worker]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "initial.npz"
        arrays = {name: value.numpy() for name, value in networks.state_dict().items()}
        np.savez(path, x=x.numpy(), latent=LATENT, **arrays)
        with Worker([python, Path(__file__).with_name("step_time_numpyro.py"), path], ONE_THREAD) as worker:
            yield worker


def estimate(draws: list[float]) -> tuple[float, float]:
    return mean(draws), stdev(draws) / len(draws) ** 0.5


def check(contestants: dict[str, Contestant], networks: Networks) -> None:
    """Refuse to time different things.

    At the initial parameters the loss must agree: to float tolerance where the noise is the same (all of torch but
    ``torch.compile``, which draws with a generator of its own), within five standard errors elsewhere. After thirty
    steps of Adam the expected loss must have fallen, to within one percent of where the others' has.
    """
    hand = contestants[HAND]
    assert isinstance(hand, Torch)
    initial, error = hand.loss(500)
    if JAX in contestants:
        found, its_error = contestants[JAX].loss(500)
        if abs(found - initial) > 5 * (error**2 + its_error**2) ** 0.5:
            raise SystemExit(f"{JAX} has another loss: {found:.3f}, expected {initial:.3f} by hand")
    after = {}
    for name, contestant in contestants.items():
        torch.manual_seed(0)
        contestant.seconds(30)
        after[name], _ = contestant.loss(100)
        if after[name] > 0.995 * initial:
            raise SystemExit(f"{name} does not learn: {initial:.3f} before, {after[name]:.3f} after thirty steps")
    for name, found in after.items():
        if abs(found / after[HAND] - 1) > 0.01:
            raise SystemExit(f"{name} learns something else: {found:.3f} after thirty steps, {after[HAND]:.3f} by hand")
    expected = hand.losses_at(networks, range(300))
    for name, contestant in contestants.items():
        if isinstance(contestant, NumPyro):
            contestant.refuse_threads()
        elif isinstance(contestant, Torch):
            losses = contestant.losses_at(networks, range(300 if name == COMPILED else 5))
            if not (alike if name == COMPILED else equal)(losses, expected):
                raise SystemExit(f"{name} has another loss: {losses[:5]}, expected {expected[:5]} by hand")


def equal(losses: list[float], expected: list[float]) -> bool:
    return np.allclose(losses, expected[: len(losses)], rtol=1e-5, atol=0)


def alike(losses: list[float], expected: list[float]) -> bool:
    (found, error), (hand, its_error) = estimate(losses), estimate(expected)
    return abs(found - hand) < 5 * (error**2 + its_error**2) ** 0.5


class Measured(NamedTuple):
    """Milliseconds a step, one for each round, by contestant; and the versions of NumPyro and JAX."""

    milliseconds: dict[str, list[float]]
    numpyro: dict[str, str]


def measure(configuration: str, rounds: int, python: Path | None) -> Measured:
    """Time one configuration. In a fresh process, so that compilers and Pyro's global state start anew."""
    warnings.filterwarnings("ignore")
    torch._logging.set_logs(all=logging.ERROR)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # XLA's flags leave it a second thread, for dispatch
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.manual_seed(0)
    hidden, batch = map(int, configuration.split("/"))
    networks, x = Networks(hidden), (torch.rand(batch, PIXELS) < 0.3).float()
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {name: Torch(name, networks, x) for name in TORCH}
        found = {}
        if python is not None:
            worker = stack.enter_context(numpyro(python, networks, x))
            contestants[JAX], found = NumPyro(worker), worker.ask("versions")
        check(contestants, networks)
        return Measured(take_turns(contestants, rounds), found)


def written(results: dict[str, Measured], rounds: int) -> Path:
    others = next(iter(results.values())).numpyro
    head = ["", *(cell for configuration in results for cell in (f"{configuration}: ms", "× Pyro SVI"))]
    rows = [[name, *(cell for times, _ in results.values() for cell in cells(times, name))] for name in TORCH]
    rows.append([JAX, *(cell for times, _ in results.values() for cell in cells(times, JAX))])
    return write(
        "step_time",
        header(
            "Time of a training step",
            "make bench-step-time",
            threads=1,
            versions=versions("torch", "pyro-ppl", "pyrogen-ppl") | others,
        ),
        f"A variational autoencoder {PIXELS}-hidden-{LATENT} (one hidden layer, Softplus, Bernoulli likelihood), at "
        f"several sizes hidden/batch. A step is the loss with one particle, its gradient, and Adam; the script checks "
        f"first that all contestants take the same. Pyro and pyrogen run the same programs. pyrogen also takes the "
        f"gradient's norm and refuses a step that is not finite. `torch.compile` compiles the loss and the "
        f"optimiser's step, each on its own.",
        f"Milliseconds of processor time a step (one thread, one core): the median of {rounds} interleaved rounds. "
        f"Beside it, the time as a multiple of Pyro SVI's in the same round: median (quartiles), less is faster.",
        table(head, rows),
    )


def cells(times: dict[str, list[float]], name: str) -> tuple[str, str]:
    """Write one contestant's milliseconds, and their ratio to the baseline's."""
    if name not in times:
        return "could not be installed", ""
    middle, low, high = ratio(times[name], times[BASELINE])
    return f"{median(times[name]):#.3g}", "1" if name == BASELINE else f"{middle:.2f} ({low:.2f}–{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--configurations", nargs="+", default=["400/128", "64/64", "16/16"], metavar="HIDDEN/BATCH")
    options = parser.parse_args()
    python = numpyro_python()
    results = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for configuration in options.configurations:
            results[configuration] = pool.submit(measure, configuration, options.rounds, python).result()
    print(written(results, options.rounds).read_text())


if __name__ == "__main__":
    main()
