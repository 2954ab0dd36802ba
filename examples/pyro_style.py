"""Programs in the style of Pyro's own documentation, kept in a run directory, and loaded again.

Functions with ``pyro.param`` and an autoguide work wherever pyrogen's own models do: here eight schools, a hierarchical
model, fitted, saved with checkpoints, and brought back.

Run: python examples/pyro_style.py [--steps 2000] [--out runs/eight-schools]
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_median

import pyrogen

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def main(steps: int, out: str) -> None:
    pyro.set_rng_seed(0)
    guide = AutoMultivariateNormal(model, init_loc_fn=init_to_median)
    training = pyrogen.train(
        pyrogen.ELBO(num_particles=8),
        model,
        guide,
        [(Y, SIGMA)],
        lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        num_steps=steps,
    )
    run = pyrogen.Run.create(out, {"model": "eight schools"}, overwrite=True)
    outcome = pyrogen.fit(training, run, evaluate_every=500)
    print(outcome)

    fresh = AutoMultivariateNormal(model, init_loc_fn=init_to_median)
    pyro.clear_param_store()
    pyrogen.load(out, model, fresh)
    mu, tau = (fresh.quantiles([0.05, 0.5, 0.95], Y, SIGMA)[name] for name in ("mu", "tau"))
    print(f"mu  {mu[1]:6.2f}   90% interval {mu[0]:6.2f} to {mu[2]:6.2f}")
    print(f"tau {tau[1]:6.2f}   90% interval {tau[0]:6.2f} to {tau[2]:6.2f}")
    log_w = pyrogen.log_weights(model, guide, Y, SIGMA, num_particles=5000)
    print(f"log evidence at least {log_w.logsumexp(0).item() - torch.log(torch.tensor(5000.0)).item():.3f} nats")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", default="runs/eight-schools")
    main(**vars(parser.parse_args()))
