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
MOVES = torch.stack([0.8 * LEFT + 0.2 * RIGHT, 0.2 * LEFT + 0.8 * RIGHT], 1)
WORLD = MDP(MOVES, torch.tensor([[0.6, -0.1], [0.0, -0.1], [0.0, -0.1], [1.0, 0.9]]))


def prior(observation, reward, **_):
    with trajectory_plates(observation):
        pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
        pyro.factor("optimality", reward)


def policy(observation, **_):
    logits = pyro.param("logits", torch.zeros(24, 2))
    with trajectory_plates(observation):
        pyro.sample("action", dist.Categorical(logits=logits[observation]))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=300)
adam = partial(torch.optim.Adam, lr=0.05)
rollouts = Rollouts(TabularEnvironment(WORLD, 64, horizon=5), policy, num_steps=5)
for step in train(KLControl(), prior, policy, rollouts, adam, num_steps=parser.parse_args().steps):
    print(f"\rELBO {-step.loss / 64:.2f} nats", end="")
print()
for room, best in enumerate(variational_values(WORLD, horizon=5).policy[0, :, 1]):
    print(f"room {room}: right with probability {pyro.param('logits')[room].softmax(-1)[1]:.2f}, at best {best:.2f}")
