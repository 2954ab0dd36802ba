"""NumPyro's side of ``compile.py``: a process that answers one line of JSON to each line of its input.

``first``, ``run``, ``rewind`` and ``losses`` are as in ``compile_worker.py``; ``versions`` returns versions. Arguments
are the row and an ``.npz`` with the batch and the first parameters, constrained, under Pyro's names.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax
from jax.nn import relu, sigmoid, softplus
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoNormal

LEARNING_RATE = 1e-3

initial = dict(np.load(sys.argv[2]))
batch = [jnp.asarray(initial[f"batch.{i}"]) for i in range(sum(name.startswith("batch.") for name in initial))]


class Program(NamedTuple):
    model: Callable[..., object]
    guide: Callable[..., object]


def param(name: str, **constraint: constraints.Constraint) -> Array:
    return numpyro.param(name, jnp.asarray(initial[name]), **constraint)


def linear(name: str) -> Callable[[Array], Array]:
    weight, bias = param(f"{name}.weight"), param(f"{name}.bias")
    return lambda x: x @ weight.T + bias


def network(name: str, activation: Callable[[Array], Array] = softplus) -> Callable[[Array], Array]:
    first, second = linear(f"{name}0"), linear(f"{name}2")
    return lambda x: second(activation(first(x)))


def amortised(plate: str) -> Callable[[Array], None]:
    """Return the guide of the autoencoder and of the topic model."""

    def guide(x: Array) -> None:
        with numpyro.plate(plate, len(x)):
            loc, log_scale = jnp.split(network("encoder$$$")(x), 2, -1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return guide


def vae(x: Array) -> None:
    decoder = network("decoder$$$")
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros((len(x), 20)), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)


def eight_schools(y: Array, sigma: Array) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def logistic(x: Array, y: Array) -> None:
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    bias = numpyro.sample("bias", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ weights + bias), obs=y)


def mixture(x: Array) -> None:
    logits, locs, scales = param("logits"), param("locs"), param("scales", constraint=constraints.positive)
    with numpyro.plate("data", len(x)):
        components = dist.Normal(locs, scales).to_event(1)
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(logits=logits), components), obs=x)


def lda(counts: Array) -> None:
    topics = jax.nn.softmax(param("topics"), -1)
    with numpyro.plate("documents", len(counts)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros((len(counts), 20)), 1.0).to_event(1))
        numpyro.factor("counts", (counts * jnp.log(jax.nn.softmax(z, -1) @ topics)).sum(-1))


def dmm(x: Array) -> None:
    transition, emitter = network("dmm$$$transition.", relu), network("dmm$$$emitter.", relu)

    def step(z: Array, x: Array) -> tuple[Array, None]:
        loc, scale = jnp.split(transition(z), 2, -1)
        with numpyro.plate("sequences", len(x)):
            z = numpyro.sample("z", dist.Normal(loc, softplus(scale)).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=emitter(z)).to_event(1), obs=x)
        return z, None

    scan(step, jnp.zeros((len(x), 16)), x.swapaxes(0, 1))


def gru(name: str, hidden: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return one step of torch's gated recurrent unit, from its state and the input's share of the gates."""
    weight, bias = param(f"{name}.weight_hh_l0"), param(f"{name}.bias_hh_l0")

    def step(state: Array, given: Array) -> tuple[Array, Array]:
        own = state @ weight.T + bias
        reset, update = jnp.split(sigmoid(given[..., : 2 * hidden] + own[..., : 2 * hidden]), 2, -1)
        new = jnp.tanh(given[..., 2 * hidden :] + reset * own[..., 2 * hidden :])
        state = (1 - update) * new + update * state
        return state, state

    return step


def dmm_guide(x: Array) -> None:
    lift, combiner = linear("dmm$$$lift"), linear("dmm$$$combiner")
    given = x.swapaxes(0, 1) @ param("dmm$$$rnn.weight_ih_l0").T + param("dmm$$$rnn.bias_ih_l0")
    _, read = lax.scan(gru("dmm$$$rnn", 32), jnp.zeros((len(x), 32)), given, reverse=True)

    def step(z: Array, read: Array) -> tuple[Array, None]:
        loc, scale = jnp.split(combiner(0.5 * (jnp.tanh(lift(z)) + read)), 2, -1)
        with numpyro.plate("sequences", len(read)):
            z = numpyro.sample("z", dist.Normal(loc, softplus(scale)).to_event(1))
        return z, None

    scan(step, jnp.zeros((len(x), 16)), read)


def autonormal(model: Callable[..., None], **start: Array) -> Program:
    return Program(model, AutoNormal(model, init_loc_fn=init_to_value(values=start), init_scale=0.1))


ROWS: dict[str, Callable[[], Program]] = {
    "eight-schools": lambda: autonormal(eight_schools, mu=jnp.array(0.0), tau=jnp.array(1.0), theta=jnp.zeros(8)),
    "logistic": lambda: autonormal(logistic, weights=jnp.zeros(54), bias=jnp.array(0.0)),
    "mixture": lambda: Program(mixture, lambda x: None),
    "lda": lambda: Program(lda, amortised("documents")),
    "dmm": lambda: Program(dmm, dmm_guide),
}


class Fit:
    """The training of one program, and the answers to questions about it."""

    def first(self, _: int) -> dict[str, float]:
        start = time.perf_counter()
        program = ROWS.get(sys.argv[1], lambda: Program(vae, amortised("data")))()
        svi = SVI(program.model, program.guide, numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
        self.update = jax.jit(svi.update)
        self.initial = svi.init(jax.random.PRNGKey(0), *batch)
        self.state, loss = self.update(self.initial, *batch)
        jax.block_until_ready((self.state, loss))
        return {"seconds": time.perf_counter() - start}

    def run(self, steps: int) -> dict[str, float]:
        update, state = self.update, self.state
        start = time.perf_counter()
        for _ in range(steps):
            state, loss = update(state, *batch)
        jax.block_until_ready((state, loss))
        self.state = state
        return {"seconds": time.perf_counter() - start}

    def losses(self, draws: int) -> dict[str, list[float]]:
        keys = jax.random.split(jax.random.PRNGKey(1), draws)
        return {"losses": [float(self.update(self.state._replace(rng_key=key), *batch)[1]) for key in keys]}

    def rewind(self, _: int) -> dict[str, str]:
        self.state = self.initial
        return {}

    def versions(self, _: int) -> dict[str, str]:
        return {name: version(name) for name in ("numpyro", "jax")}


fit = Fit()
for line in sys.stdin:
    verb, _, number = line.strip().partition(" ")
    print(json.dumps(getattr(fit, verb)(int(number or 0))), flush=True)
