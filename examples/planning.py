"""Swing a pendulum up by planning with a model of it. Run: python examples/planning.py [--steps 200] [--method mppi]"""

import argparse
import math

import pyro
import torch

from pyrogen.data import GymnasiumEnvironment, Rollouts
from pyrogen.models import CEM, MPPI

STARTS = 20


def pendulum(observation, action):
    """Say what a step of gymnasium's Pendulum-v1 brings."""
    cosine, sine, speed = observation.unbind(-1)
    angle, torque = torch.atan2(sine, cosine), 2 * action.squeeze(-1)
    reward = -(angle.square() + 0.1 * speed.square() + 0.001 * torque.square())
    speed = (speed + 0.05 * (15 * sine + 3 * torque)).clamp(-8, 8)
    angle = angle + 0.05 * speed
    return torch.stack([angle.cos(), angle.sin(), speed], -1), reward


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=200, help="of an episode, of 200")
parser.add_argument("--method", choices=["mppi", "cem"], default="mppi")
options = parser.parse_args()

pyro.set_rng_seed(0)
settings = {"num_samples": 100, "num_environments": STARTS}
planner = CEM(pendulum, 1, **settings) if options.method == "cem" else MPPI(pendulum, 1, temperature=0.2, **settings)
recordings = Rollouts(GymnasiumEnvironment("Pendulum-v1", STARTS), planner, options.steps)
returns = next(iter(recordings))["reward"].sum(0)
print(f"return {returns.mean():.0f} ± {returns.std() / math.sqrt(STARTS):.0f}, of {STARTS} starts")
