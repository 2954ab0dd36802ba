"""One torch contestant of ``compile.py`` on one program: a process that answers a line of JSON to each line of input.

``first`` takes the first step, with all that comes before it, compilation among it, and returns its seconds;
``run STEPS`` takes steps and returns their seconds; ``rewind 0`` goes back to the first parameters; ``losses DRAWS``
returns the losses of steps that all start at the present parameters, each with a seed of its own. ``--save PATH``
writes the batch and the first parameters for NumPyro. Imports are over before the first question.

Run: ``python compile_worker.py CONTESTANT ROW THREADS``.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pyro
import torch
import torch._dynamo
import torch._inductor.compile_fx
from compile_by_hand import by_hand
from compile_programs import Program, make
from pyro.infer import SVI
from torch import Tensor

import pyrogen.inference.inductor  # noqa: F401 - what a compiled step would import
from pyrogen.errors import CompileWarning
from pyrogen.inference import ELBO, train

LEARNING_RATE = 1e-3


class Started(NamedTuple):
    """A contestant: takes one step and returns the loss before it; its parameters, once it has taken one."""

    step: Callable[[], Tensor | float]
    parameters: Callable[[], Mapping[str, Tensor]]


def stored() -> dict[str, Tensor]:
    """Return the unconstrained parameters in Pyro's store."""
    return dict(pyro.get_param_store().named_parameters())


def pyro_svi(program: Program) -> Started:
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), program.pyro_elbo())
    return Started(lambda: svi.step(*program.batch), stored)


def pyrogen_train(program: Program, compile: bool) -> Started:
    training = train(
        ELBO(analytic_kl=False),
        program.model,
        program.guide,
        repeat(program.batch),
        lambda parameters: torch.optim.Adam(parameters, lr=LEARNING_RATE),
        validate=False,
        compile=compile,
    )
    return Started(lambda: next(training).loss, stored)


def hand_compiled(program: Program) -> Started:
    module = by_hand(program)
    compute = torch.compile(module, fullgraph=True, dynamic=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = compute(*program.batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Started(step, lambda: dict(module.named_parameters()))


CONTESTANTS: dict[str, Callable[[Program], Started]] = {
    "pyro": pyro_svi,
    "pyrogen": lambda program: pyrogen_train(program, compile=False),
    "pyrogen-compiled": lambda program: pyrogen_train(program, compile=True),
    "hand-compiled": hand_compiled,
}


class Fit:
    """A contestant's training of one program, and the answers to questions about it."""

    def __init__(self, contestant: str, row: str) -> None:
        self.contestant, self.row = contestant, row
        self.started: Started | None = None

    def first(self, _: int) -> dict[str, float]:
        program = make(self.row)
        torch.manual_seed(0)
        start = time.perf_counter()
        self.started = CONTESTANTS[self.contestant](program)
        self.started.step()
        return {"seconds": time.perf_counter() - start}

    def run(self, steps: int) -> dict[str, float]:
        assert self.started is not None
        step = self.started.step
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return {"seconds": time.perf_counter() - start}

    def losses(self, draws: int) -> dict[str, list[float]]:
        assert self.started is not None
        present = {name: parameter.detach().clone() for name, parameter in self.started.parameters().items()}
        found = []
        for seed in range(draws):
            torch.manual_seed(seed)
            found.append(float(self.started.step()))
            self._take(present)
        return {"losses": found}

    def rewind(self, _: int) -> dict[str, str]:
        program = make(self.row)
        if self.contestant == "hand-compiled":
            self._take(dict(by_hand(program).named_parameters()))
        else:
            with pyro.get_param_store().scope():
                run_once(program)
                first = stored()
            self._take(first)
        return {}

    def _take(self, values: Mapping[str, Tensor]) -> None:
        assert self.started is not None
        parameters = self.started.parameters()
        if parameters.keys() != values.keys():
            raise KeyError(f"parameters are {sorted(parameters)}, expected {sorted(values)}")
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)


def run_once(program: Program) -> None:
    """Run guide and model, which makes their parameters."""
    program.guide(*program.batch)
    program.model(*program.batch)


def save(row: str, path: str) -> None:
    """Write the batch and the first parameters, constrained."""
    program = make(row)
    run_once(program)
    batch = {f"batch.{i}": tensor.numpy() for i, tensor in enumerate(program.batch)}
    np.savez(path, **batch, **{name: value.detach().numpy() for name, value in pyro.get_param_store().items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("row")
    parser.add_argument("threads", type=int)
    parser.add_argument("--save", metavar="PATH")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", CompileWarning)
    torch._logging.set_logs(all=logging.ERROR)
    torch._dynamo.config.allow_rnn = True
    torch.set_num_threads(options.threads)
    if options.save:
        return save(options.row, options.save)
    fit = Fit(options.contestant, options.row)
    answers = {"first": fit.first, "run": fit.run, "losses": fit.losses, "rewind": fit.rewind}
    for line in sys.stdin:
        verb, _, number = line.strip().partition(" ")
        print(json.dumps(answers[verb](int(number or 0))), flush=True)


if __name__ == "__main__":
    main()
