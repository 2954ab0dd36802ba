"""A prior, a factor and a guide: control as inference. Run: python examples/control_as_inference.py [--steps 300]"""

import argparse
from functools import partial

import pyro
import pyro.distributions as dist
import torch

from pyrogen.data import Rollouts, TabularEnvironment
from pyrogen.evaluation import variational_values
from pyrogen.inference import KLControl, train
from pyrogen.mdp import MDP
from pyrogen.models import trajectory_plates

LEFT, RIGHT = torch.eye(4)[[0, 0, 1, 2]], torch.eye(4)[[1, 2, 3, 3]]  # four rooms in a row; one step in five slips
REWARDS = torch.tensor([[0.6, -0.1], [0.0, -0.1], [0.0, -0.1], [1.0, 0.9]])
WORLD = MDP(torch.stack([0.8 * LEFT + 0.2 * RIGHT, 0.2 * LEFT + 0.8 * RIGHT], 1), REWARDS)


def prior(observation, reward, **_):
    with trajectory_plates(observation):
        pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
        pyro.factor("optimality", reward)


def policy(observation, **_):
    logits = pyro.param("logits", torch.zeros(world.num_observations, 2))
    with trajectory_plates(observation):
        pyro.sample("action", dist.Categorical(logits=logits[observation]))


(parser := argparse.ArgumentParser(description=__doc__)).add_argument("--steps", type=int, default=300)
pyro.set_rng_seed(0)
world = TabularEnvironment(WORLD, 256, horizon=5)
adam, recordings = partial(torch.optim.Adam, lr=0.03), Rollouts(world, policy, num_steps=5)
for step in train(KLControl(), prior, policy, recordings, adam, num_steps=parser.parse_args().steps):
    print(f"\rELBO {-step.loss / 256:.2f} nats", end="")
q, best = pyro.param("logits").detach().softmax(-1), variational_values(WORLD, horizon=5)
print("\nright, from each room:", q[:4, 1], "at best", best.policy[0, :, 1])
