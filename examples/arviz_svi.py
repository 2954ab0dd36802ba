"""Eight schools by SVI with a full-rank guide, by NUTS, and exactly, side by side in ArviZ.

Run: python examples/arviz_svi.py [--steps 1500] [--out FOLDER]

It prints ArviZ's summary, leave-one-out predictive accuracy, a comparison with complete pooling and the Pareto shape of
the guide, and writes forest.png, trace.png, ppc.png and posterior.nc.
"""

import argparse
import logging
import warnings
from pathlib import Path

import matplotlib
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoMultivariateNormal

from pyrogen import ELBO, to_arviz, train
from pyrogen.inferencedata import IS_TREE, Variable, to_inference_data, write_netcdf

matplotlib.use("Agg")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # each major version of ArviZ announces the other
    import arviz as az

# Effects of coaching on test scores and their standard errors, in points (Rubin, 1981)
SCHOOLS = ["Choate", "Deerfield", "Andover", "Exeter", "Hotchkiss", "Lawrenceville", "St. Paul's", "Mt. Hermon"]
Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def hierarchical(y=Y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(SIGMA)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, SIGMA), obs=y)


def pooled(y=Y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("school", len(SIGMA)):
        pyro.sample("y", dist.Normal(mu, SIGMA), obs=y)


def by_svi(model, steps):
    pyro.clear_param_store()  # Pyro keeps parameters by name, and two autoguides of a family have the same
    guide = AutoMultivariateNormal(model, init_scale=0.1)

    def optimizer(parameters):
        return torch.optim.Adam(parameters, lr=0.03)

    def scheduler(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / steps)

    for _ in train(ELBO(8), model, guide, None, optimizer, num_steps=steps, scheduler=scheduler):
        pass
    return to_arviz((model, guide), num_samples=4000, coords={"school": SCHOOLS})


def by_nuts(model, draws):
    mcmc = MCMC(NUTS(model), num_samples=draws, warmup_steps=draws // 2, disable_progbar=True)
    mcmc.run()
    return to_arviz(mcmc, coords={"school": SCHOOLS})


def exactly(draws=4000):
    """Draw from the posterior itself: given tau everything is normal, and tau has one dimension for a grid."""
    tau = torch.linspace(0.005, 100, 20_000)
    variances = SIGMA**2 + tau[:, None] ** 2
    evidence = dist.LowRankMultivariateNormal(torch.zeros(len(Y)), torch.full((len(Y), 1), 5.0), variances).log_prob(Y)
    tau = tau[dist.Categorical(logits=evidence + dist.HalfCauchy(5.0).log_prob(tau)).sample((draws,))]
    precisions = 1 / (SIGMA**2 + tau[:, None] ** 2)
    precision = precisions.sum(-1) + 1 / 25
    mu = dist.Normal((precisions * Y).sum(-1) / precision, precision.rsqrt()).sample()
    weight = tau[:, None] ** 2 * precisions
    theta = dist.Normal(mu[:, None] + weight * (Y - mu[:, None]), weight.sqrt() * SIGMA).sample()
    values = {"mu": (mu, ()), "tau": (tau, ()), "theta": (theta, ("school",))}
    posterior = {name: Variable(x[None].numpy(), ("chain", "draw", *dims)) for name, (x, dims) in values.items()}
    return to_inference_data({"posterior": posterior}, {"school": SCHOOLS})


def trust(k):
    if k != k:
        return "All weights are equal: the guide is the posterior."
    if k < 0.5:
        return "Importance sampling from this guide works: it is close to the posterior."
    if k < 0.7:
        return "The guide is usable: its importance weights still have a mean that can be relied on."
    return "Do not trust this guide: it misses parts of the posterior. Take the means of NUTS."


def save(plot, path):
    """Save the figure that a plot of ArviZ lies in: axes before version 1, a collection of plots from then on."""
    if IS_TREE:
        plot.savefig(path)
        return
    axes = plot
    while not hasattr(axes, "figure"):
        axes = axes[0]
    axes.figure.tight_layout()
    axes.figure.savefig(path, dpi=100, bbox_inches="tight")
    matplotlib.pyplot.close(axes.figure)


def draw(svi, nuts, exact, out):
    both, names = {"SVI": svi, "NUTS": nuts, "exact": exact}, ["mu", "tau"]
    if IS_TREE:
        save(az.plot_forest(both, var_names=["mu", "tau", "theta"]), out / "forest.png")
        save(az.plot_trace_dist(svi, var_names=names), out / "trace.png")
        save(az.plot_ppc_dist(svi, kind="ecdf", num_samples=100), out / "ppc.png")
        return
    forest = az.plot_forest(list(both.values()), model_names=list(both), var_names=[*names, "theta"], combined=True)
    save(forest, out / "forest.png")
    save(az.plot_trace(svi, var_names=names, figsize=(10, 6)), out / "trace.png")
    save(az.plot_ppc(svi, kind="cumulative", num_pp_samples=100, random_seed=0), out / "ppc.png")


def main(steps: int, out: Path) -> None:
    pyro.set_rng_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    svi, simple = by_svi(hierarchical, steps), by_svi(pooled, steps)
    nuts = by_nuts(hierarchical, max(10, min(500, steps // 3)))
    exact = exactly()
    logging.disable(logging.WARNING)  # a guide's draws are one chain, which ArviZ warns of
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in {"SVI": svi, "NUTS": nuts}.items():
            table = az.summary(data, var_names=["mu", "tau", "theta"])
            print(f"{name}\n{table.dropna(axis='columns', how='all').to_string()}\n\n{az.loo(data)}\n")
        print(f"exact\n{az.summary(exact, kind='stats').to_string()}\n")
        both = {"hierarchical, NUTS": nuts, "hierarchical, SVI": svi, "pooled, SVI": simple}
        print(f"{az.compare(both).to_string()}\n")
        for name, data in {"hierarchical": svi, "pooled": simple}.items():
            k = data["sample_stats"].attrs["pareto_k"]
            print(f"Pareto k of the {name} model's guide: {k:.2f}. {trust(k)}")
        print("Leave-one-out takes the draws for the posterior's: where it warns of a guide's, believe that of NUTS.")
        draw(svi, nuts, exact, out)
    logging.disable(logging.NOTSET)
    write_netcdf(svi, out / "posterior.nc")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path())
    main(**vars(parser.parse_args()))
