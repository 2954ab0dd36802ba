"""NumPyro's side of ``step_time.py``: a process that answers one line of JSON to each line of its input.

``run STEPS`` takes jitted SVI steps and returns their seconds (by the wall and by the processor); ``loss DRAWS``
returns the mean of the loss at the present parameters and its standard error; ``versions`` returns versions. The
argument is an ``.npz`` with the batch ``x``, the latent size and the torch networks' initial parameters.
"""

import json
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO

LEARNING_RATE = 1e-3

initial = np.load(sys.argv[1])
x = jnp.asarray(initial["x"])
latent = int(initial["latent"])


def network(name, inputs):
    weight, bias = (
        [numpyro.param(f"{name}.{i}.{part}", jnp.asarray(initial[f"{name}.{i}.{part}"])) for i in (0, 2)]
        for part in ("weight", "bias")
    )
    return jax.nn.softplus(inputs @ weight[0].T + bias[0]) @ weight[1].T + bias[1]


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros((len(x), latent)), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=network("decoder", z)).to_event(1), obs=x)


def guide(x):
    with numpyro.plate("data", len(x)):
        loc, log_scale = jnp.split(network("encoder", x), 2, -1)
        numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))


svi = SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
update = jax.jit(svi.update)
evaluate = jax.jit(lambda params, key: Trace_ELBO().loss(key, params, model, guide, x))
state = svi.init(jax.random.PRNGKey(0), x)


def run(steps: int) -> dict[str, float]:
    global state
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        state, loss = update(state, x)
    jax.block_until_ready((state, loss))
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def loss(draws: int) -> dict[str, float]:
    params = svi.get_params(state)
    losses = np.array([evaluate(params, key) for key in jax.random.split(jax.random.PRNGKey(1), draws)])
    return {"mean": float(losses.mean()), "stderr": float(losses.std(ddof=1) / draws**0.5)}


def versions(_: int) -> dict[str, str]:
    return {name: version(name) for name in ("numpyro", "jax")}


for line in sys.stdin:
    verb, _, number = line.strip().partition(" ")
    print(json.dumps({"run": run, "loss": loss, "versions": versions}[verb](int(number or 0))), flush=True)
