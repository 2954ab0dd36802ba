"""Planning for a pendulum: returns of MPPI and CEM with its true model, and with one learned from random steps.

Every (model, method, seed) appends a line to ``results/planning.jsonl``; what is there is not run again. ``--table``
writes the table of what is there.

Run: ``python benchmarks/planning.py [--seeds 0 1]``.
"""

import argparse
import contextlib
import runpy
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from report import RESULTS, append_row, header, mean_cell, missing, read_rows, table, versions, write
from torch import Tensor, nn

from pyrogen.data import Batches, GymnasiumEnvironment, Rollouts
from pyrogen.inference import MaximumLikelihood, train
from pyrogen.models import CEM, MPPI, UniformBox
from pyrogen.nn import MLP
from pyrogen.world import World

ROWS = RESULTS / "planning.jsonl"
STARTS, EPISODE = 20, 200
RANDOM_EPISODES, BATCH, EPOCHS, WIDTH = 20, 100, 60, 64
METHODS = {"MPPI": partial(MPPI, temperature=0.2), "CEM": CEM}
SETTINGS = {"horizon": 20, "num_samples": 100}


def true_model() -> World:
    """Take the example's."""
    sys.argv = ["planning.py", "--steps", "1"]
    with contextlib.redirect_stdout(None):
        return runpy.run_path(str(Path(__file__).parent.parent / "examples" / "planning.py"))["pendulum"]


class Learned(nn.Module):
    """A model of a pendulum, a program: normal changes of what is observed, and normal rewards."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(4, 2 * 4, (WIDTH, WIDTH))

    def change(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and deviations of the changes and of the reward."""
        seen = torch.cat([observation[..., :2], observation[..., 2:] / 8, action], -1)
        loc, raw_scale = self.network(seen).chunk(2, -1)
        return loc, raw_scale.clamp(-7, 2).exp()

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step."""
        loc, scale = self.change(observation, action)
        after = dist.Normal(observation + loc[..., :3], scale[..., :3]).to_event(1)
        return pyro.sample("next_observation", after), loc[..., 3]

    def likelihood(self, observation: Tensor, action: Tensor, changed: Tensor) -> None:
        """Score recorded changes and rewards."""
        with pyro.plate("steps", len(observation)):
            pyro.sample("changed", dist.Normal(*self.change(observation, action)).to_event(1), obs=changed)


def learned_model(seed: int) -> World:
    """Fit a model to random steps by maximum likelihood."""
    world = GymnasiumEnvironment("Pendulum-v1", RANDOM_EPISODES, seed=1000 + seed)
    recording = next(iter(Rollouts(world, UniformBox(1), EPISODE)))
    changed = torch.cat(
        [recording["next_observation"] - recording["observation"], recording["reward"].unsqueeze(-1)], -1
    )  # fmt: skip
    columns = {"observation": recording["observation"], "action": recording["action"], "changed": changed}
    batches = Batches({name: column.flatten(0, 1) for name, column in columns.items()}, BATCH)
    model, num_steps = Learned(), EPOCHS * len(batches)
    scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=num_steps)
    for _ in train(MaximumLikelihood(), model.likelihood, None, batches, partial(torch.optim.Adam, lr=3e-3),
                   scheduler=scheduler, num_steps=num_steps):  # fmt: skip
        pass
    return model


def measure(model: str, method: str, seed: int) -> dict[str, Any]:
    """Plan one episode from each start."""
    pyro.set_rng_seed(seed)
    world = true_model() if model == "true" else learned_model(seed)
    planner = METHODS[method](world, 1, num_environments=STARTS, **SETTINGS)
    environment = GymnasiumEnvironment("Pendulum-v1", STARTS, seed=seed)
    returns = next(iter(Rollouts(environment, planner, EPISODE)))["reward"].sum(0)
    return {"returns": returns.tolist()}


def write_table() -> None:
    """Write what all rows say."""
    rows, lines = read_rows(ROWS), []
    for model, method in product(("true", "learned"), METHODS):
        found = [row for row in rows if (row["model"], row["method"]) == (model, method)]
        if found:
            returns = [total for row in found for total in row["returns"]]
            lines.append([model, method, str(len(returns)), mean_cell(returns, 0), f"{min(returns):.0f}"])
    write(
        "planning",
        header("Planning for a pendulum", "make bench-planning", 1,
               versions("torch", "pyro-ppl", "gymnasium", "pyrogen-ppl")),
        f"Pendulum-v1, whole episodes of {EPISODE} steps, mean return ± standard error over starts, which differ much: "
        f"from below, no policy can do without swinging up. {SETTINGS['num_samples']} plans of {SETTINGS['horizon']} "
        f"steps, other settings by default but for MPPI's temperature of 0.2.",
        f"- model: the true one, or networks of 2 x {WIDTH} units, fitted by maximum likelihood to "
        f"{RANDOM_EPISODES * EPISODE:,} random steps, anew for each seed.",
        table(["model", "method", "starts", "mean return", "least"], lines),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--table", action="store_true", help="write the table of what has been measured, and end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in missing(ROWS, seed=options.seeds, model=["true", "learned"], method=list(METHODS)):
        if options.table:
            break
        append_row(ROWS, task | measure(**task))
    write_table()


if __name__ == "__main__":
    main()
