"""Control: what policies get in gymnasium's environments, and how fast they learn, beside stable-baselines3.

Every (setting, seed) appends a line to ``results/control.jsonl``; what is there is not run again. The peer runs in an
environment of its own, which is made if need be; what belongs together has the same algorithm, network, batch, number
of steps and threads. Policies are those after the last step, not the best on the way, and play 100 episodes by their
draws and 100 by their modes, which begin alike, ours and the peer's. Settings were chosen on seeds from 100 on.

Run: ``OMP_NUM_THREADS=1 python benchmarks/control.py [--settings NAME ...] [--seeds 0 1 ...]``.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pyro
import torch
from report import RESULTS, append_row, header, machine, mean_cell, missing, read_rows, table, versions, write

from pyrogen.control_recipe import ControlRecipe
from pyrogen.control_settings import ControlSettings
from pyrogen.data.copies import episode_seed
from pyrogen.evaluation import evaluating, play, returns_interval
from pyrogen.recipe import Named
from pyrogen.sites import or_nothing

ROWS = RESULTS / "control.jsonl"
PEER = Path(__file__).parent.parent / ".venv-stable-baselines3"
SEEDS, COPIES, EACH, FIRST_SEED = range(5), 20, 5, 10_000
STARTS = [episode_seed(FIRST_SEED, copy, episode) for copy in range(COPIES) for episode in range(EACH)]
"""Where episodes begin, ours and the peer's."""


def ours(env: str, objective: str, policy: dict[str, Any], about: dict[str, Any], **training: Any) -> ControlRecipe:
    return ControlRecipe(Named("policy", policy), Named(objective, about), Named(env), ControlSettings(**training))


def peer(env: str, algorithm: str, num_environments: int, steps: int, **settings: Any) -> dict[str, Any]:
    about = {"algorithm": algorithm, "env": env, "num_environments": num_environments, "steps": steps}
    return about | {"settings": settings}


ON_POLICY = {"num_environments": 8, "schedule": "cosine", "compile": "on"}
TRUST = {**ON_POLICY, "recording_steps": 64, "uses": 10, "minibatches": 4, "learning_rate": 1e-3}
ONCE = {**ON_POLICY, "critic_steps": 8, "learning_rate": 2e-3, "critic_learning_rate": 3e-3, "clip_norm": 20.0}
PEER_TRUST = {"n_steps": 64, "batch_size": 128, "n_epochs": 10, "learning_rate": 1e-3}
COOL = {"temperature": 0.1}
WIDE = {"hidden": (256, 256), "activation": "relu"}
NARROW = {"critic_hidden": (64, 64)}
PENDULUM = {"steps": 20_000, "warmup": 1_000, "learning_rate": 1e-3, "compile": "on"}
OFTEN = {"num_environments": 4, "recording_steps": 4, "uses": 4, "learning_rate": 1e-3, "compile": "on"}
SMOOTH = {"temperature": 0.1, "exploration": "state-dependent", "noise_steps": 32}
LONG = {"discount": 0.9999, "rate": 0.01, "critic_hidden": (64, 64)}
CAR = {"steps": 50_000, "recording_steps": 32, "uses": 32, "batch_size": 512, "warmup": 0, "capacity": 50_000}
CAR |= {"learning_rate": 3e-4, "compile": "on"}
PEER_CAR = {"gamma": 0.9999, "tau": 0.01, "ent_coef": 0.1, "train_freq": 32, "gradient_steps": 32, "batch_size": 512}
PEER_CAR |= {"learning_starts": 0, "buffer_size": 50_000, "use_sde": True}
PEER_CAR |= {"policy_kwargs": {"log_std_init": -3.67, "net_arch": [64, 64]}}
FAR = {"discount": 0.999, "decay": 0.98, "normalize": True}
LANDING = {"steps": 1_000_000, "num_environments": 16, "recording_steps": 1024, "uses": 4, "minibatches": 128}
LANDING |= {"learning_rate": 1e-3, "schedule": "cosine", "compile": "on"}
PEER_LANDING = {"n_steps": 1024, "batch_size": 64, "n_epochs": 4, "gamma": 0.999, "gae_lambda": 0.98, "ent_coef": 0.01}
"""Those of rl-zoo."""

SETTINGS: dict[str, ControlRecipe | dict[str, Any]] = {
    "CartPole-v1: PPO": ours("CartPole-v1", "ppo", COOL, {}, steps=50_000, **TRUST),
    "CartPole-v1: PPO, peer": peer("CartPole-v1", "PPO", 8, 50_000, **PEER_TRUST),
    "CartPole-v1: KL control": ours("CartPole-v1", "kl-control", COOL, {}, steps=50_000, recording_steps=8, **ONCE),
    "CartPole-v1: A2C, peer": peer("CartPole-v1", "A2C", 8, 50_000, n_steps=8, gae_lambda=0.95),
    "CartPole-v1: VIREL": ours("CartPole-v1", "virel", {"activation": "relu"}, NARROW, steps=50_000, **OFTEN),
    "Acrobot-v1: KL control": ours(
        "Acrobot-v1", "kl-control", {"temperature": 0.05}, {}, steps=100_000, recording_steps=16, **ONCE
    ),
    "Acrobot-v1: PPO": ours("Acrobot-v1", "ppo", COOL, {}, steps=100_000, **TRUST),
    "Acrobot-v1: PPO, peer": peer("Acrobot-v1", "PPO", 8, 100_000, **PEER_TRUST),
    "Acrobot-v1: VIREL": ours("Acrobot-v1", "virel", {"activation": "relu"}, NARROW, steps=100_000, **OFTEN),
    "Pendulum-v1: SAC": ours("Pendulum-v1", "sac", WIDE, {}, **PENDULUM),
    "Pendulum-v1: SAC, peer": peer("Pendulum-v1", "SAC", 1, 20_000, learning_rate=1e-3, learning_starts=1_000),
    "Pendulum-v1: MPO": ours(
        "Pendulum-v1", "mpo", {"temperature": 0.3, "activation": "relu"}, NARROW, batch_size=64, **PENDULUM
    ),
    "Pendulum-v1: VIREL": ours("Pendulum-v1", "virel", {"activation": "relu"}, NARROW, **PENDULUM),
    "MountainCarContinuous-v0: SAC": ours("MountainCarContinuous-v0", "sac", SMOOTH, {"tuned": False, **LONG}, **CAR),
    "MountainCarContinuous-v0: SAC, peer": peer("MountainCarContinuous-v0", "SAC", 1, 50_000, **PEER_CAR),
    "MountainCarContinuous-v0: VIREL": ours("MountainCarContinuous-v0", "virel", SMOOTH, LONG, **CAR),
    "LunarLander-v3: PPO": ours("LunarLander-v3", "ppo", {"temperature": 0.01}, FAR, **LANDING),
    "LunarLander-v3: PPO, peer": peer("LunarLander-v3", "PPO", 16, 1_000_000, **PEER_LANDING),
}
"""Recipes of ours, and what the peer is asked for."""


def run(recipe: ControlRecipe) -> dict[str, Any]:
    """Train, and play; the time of training is without what comes before the first step, which compiles."""
    environment = recipe.environment()
    programs = recipe.programs(environment.spec)
    training = recipe.fit(environment, programs)
    begun = time.perf_counter()
    next(training)
    started, before = time.perf_counter(), environment.num_environment_steps
    for _ in training:
        pass
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {"steps": environment.num_environment_steps, "start_seconds": started - begun}
    found["steps_per_second"] = (environment.num_environment_steps - before) / seconds
    for name, deterministic in (("drawn", False), ("mode", True)):
        pyro.set_rng_seed(0)
        with evaluating(*programs):
            stage = recipe.copies(COPIES, FIRST_SEED)
            episodes = play(stage, or_nothing(programs.guide), len(STARTS), deterministic=deterministic)
        found[name] = episodes.returns.tolist()
    return found


def asked(python: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the peer."""
    script = Path(__file__).with_name("control_peer.py")
    done = subprocess.run(
        [python, script], input=json.dumps(question), stdout=subprocess.PIPE, text=True, check=True
    )  # fmt: skip
    found = json.loads(done.stdout)
    return found | {"steps_per_second": found["steps"] / found.pop("seconds")}


def peer_python() -> Path:
    """Return the interpreter of the peer's environment, made if need be."""
    python = PEER / "bin" / "python"
    if not python.exists():
        constraints = Path(__file__).parent.parent / "constraints.txt"
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        wanted = ["stable-baselines3", "gymnasium[classic-control,box2d]", "torch"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *wanted], check=True)
    return python


def fit(setting: str, seed: int) -> dict[str, Any]:
    """Run a setting with a seed, ours or the peer's."""
    about = SETTINGS[setting]
    if isinstance(about, dict):
        return asked(peer_python(), about | {"seed": seed, "episode_seeds": STARTS})
    return run(replace(about, seed=seed))


def cells(setting: str, rows: list[dict[str, Any]]) -> list[str]:
    """Lay out one setting: means over seeds of mean returns, and the interquartile mean of all with its interval."""
    middle = returns_interval([torch.tensor(row["drawn"]) for row in rows])
    return [
        setting,
        str(len(rows)),
        f"{rows[0]['steps']:,}",
        mean_cell([mean(row["drawn"]) for row in rows], 1),
        mean_cell([mean(row["mode"]) for row in rows], 1),
        f"{middle.value:.1f} ({middle.low:.1f} to {middle.high:.1f})",
        f"{median(row['steps_per_second'] for row in rows):,.0f}",
    ]


def page(rows: list[dict[str, Any]]) -> str:
    """Lay out what was measured."""
    head = ["setting", "seeds", "steps", "return of draws", "of modes", "interquartile mean of draws", "steps/s"]
    grouped = {name: [row for row in rows if row["setting"] == name] for name in SETTINGS}
    body = [cells(name, of) for name, of in grouped.items() if of]
    words = "OMP_NUM_THREADS=1 python benchmarks/control.py"
    return "\n\n".join(
        [
            header("Control: returns and speed", words, 1, versions("torch", "pyro-ppl", "gymnasium")),
            table(head, body),
            NOTES,
        ]
    )


NOTES = """Returns are of 100 episodes a seed: the mean over seeds, with its standard error; the interquartile mean over
seeds and episodes has a 95% bootstrap interval. Steps a second are those of all environments together while training,
one thread, the median over seeds; ours are counted from the first step on, which compiles. Two thirds of
SAC's time on Pendulum are products of matrices, 256 by 256, which ours and the peer's have alike. On LunarLander
ours takes 31,232 steps of gradients, and the peer, by the settings of rl-zoo, 63,488."""


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    options = parser.parse_args(None if arguments is None else list(arguments))
    for wanted in missing(ROWS, seed=options.seeds, setting=options.settings):
        row = wanted | {"device": machine()} | fit(wanted["setting"], wanted["seed"])
        append_row(ROWS, row)
        print(f"{wanted['setting']}, seed {wanted['seed']}: {mean(row['drawn']):.1f}", flush=True)
    write("control", page(read_rows(ROWS)))


if __name__ == "__main__":
    main()
