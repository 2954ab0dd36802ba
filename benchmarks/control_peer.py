"""Train a policy with stable-baselines3 and print what it came to: one JSON object a line of settings.

It runs in an environment of its own, which has no pyrogen: see ``control.py``. Settings are read from standard input:
``{"algorithm": "PPO", "env": "CartPole-v1", "num_environments": 8, "steps": 50000, "seed": 0, "settings": {...},
"episode_seeds": [...]}``.
"""

import json
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env


def returns(policy: BaseAlgorithm, asked: dict[str, Any], deterministic: bool) -> NDArray[np.float64]:
    """Play episodes, each from a seed of its own."""
    world, found = gymnasium.make(asked["env"]), []
    for seed in asked["episode_seeds"]:
        observation, _ = world.reset(seed=seed)
        total, is_over = 0.0, False
        while not is_over:
            action, _ = policy.predict(observation, deterministic=deterministic)
            observation, reward, terminated, truncated, _ = world.step(action)
            total, is_over = total + float(reward), terminated or truncated
        found.append(total)
    return np.array(found)


def trained(asked: dict[str, Any]) -> dict[str, Any]:
    """Train, and evaluate by the mode of the policy and by its draws."""
    worlds = make_vec_env(asked["env"], n_envs=asked["num_environments"], seed=asked["seed"])
    algorithm = getattr(stable_baselines3, asked["algorithm"])
    policy = algorithm("MlpPolicy", worlds, seed=asked["seed"], device="cpu", **asked["settings"])
    start = time.perf_counter()
    policy.learn(asked["steps"])
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "steps": policy.num_timesteps,
        "mode": returns(policy, asked, True).tolist(),
        "drawn": returns(policy, asked, False).tolist(),
        "versions": {"stable-baselines3": stable_baselines3.__version__, "torch": torch.__version__},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(trained(json.loads(line))), flush=True)
