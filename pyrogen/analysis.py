"""Posteriors for ArviZ: from a model and its guide, from MCMC, or from a run directory."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import MCMC

from pyrogen.card import accepted_columns
from pyrogen.control_recipe import ControlRecipe
from pyrogen.counts import take
from pyrogen.data import Corpus
from pyrogen.draws import Reader, Source
from pyrogen.errors import UsageError
from pyrogen.evaluation import evaluating
from pyrogen.inferencedata import Variable, to_inference_data
from pyrogen.loading import load
from pyrogen.parameters import modules_of
from pyrogen.policy_evaluation import AT_ONCE, EVALUATION_SEED, played, stage_of
from pyrogen.recipe import Recipe
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run
from pyrogen.sites import nothing

__all__ = ["to_arviz"]

RUN_ROWS, RUN_DOCUMENTS = 50, 10
"""How many held-out data of a run are analysed: posteriors of local latents are one for each."""


def to_arviz(
    fitted: Any,
    *args: Any,
    num_samples: int = 1000,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> Any:
    r"""Give a posterior to ArviZ.

    The groups, each where it applies:

    - ``posterior``: the guide's draws of every latent site, or MCMC's; sites that the model enumerates are drawn from
      their exact conditional posterior; ``pyro.deterministic`` sites;
    - ``posterior_predictive``: new data at every observed site; ``prior`` and ``prior_predictive``: the same without
      having seen any; ``observed_data``;
    - ``log_likelihood``: :math:`\log p(x_n \mid z)` for each datum and draw, with enumerated sites summed out; 0 where
      data are masked. Where *all* latents are local to a datum, in model and guide, it is instead the
      importance-weighted estimate of :math:`\log p(x_n)` from the draws in ``posterior``, one number a datum, and its
      attribute ``estimate`` says ``iwae``;
    - ``constant_data``: of the run of a policy, the ``observation`` of each state whose actions were drawn;
    - ``sample_stats``: ``lp`` :math:`= \log p(x, z)`; of a guide ``log_weight`` :math:`= \log p(x, z) - \log q(z)` with
      the Pareto shape ``pareto_k`` of the weights (above 0.7, do not trust this guide; NaN and ``constant_weights``
      where the guide is exact); where latents are local, one ``pareto_k`` a datum. Of MCMC ``diverging``.

    Dimensions are called after plates; further ones ``SITE_dim_0``, ... as in ArviZ. A plate that subsamples keeps one
    subsample throughout, and has its indices for coordinates; ``lp`` and ``log_weight`` are scaled up to all data.

    Args:
        fitted: a pair ``(model, guide)`` (either fitted to anything; guides without a density, implicit ones and
            points, give no weights), a Pyro ``MCMC`` after its run, or a run of ``pyrogen train`` or its path.
        args: the programs' arguments, observed data included; of a run, the first 50 rows of its test data are taken
            (10 of documents), or of its training data where there are none; of a policy, 50 states of its episodes.
        num_samples: draws, of a guide.
        coords: plate or dimension name to coordinates.
        dims: site name to the names of its event's dimensions; a model may say so itself, by an attribute ``dims``.
        seed: of all draws; the global generators are left as they were.
        kwargs: the programs' keyword arguments.

    Returns:
        ``arviz.InferenceData`` under ArviZ 0.x, ``xarray.DataTree`` under 1.x.

    Raises:
        UsageError: where ``fitted`` is none of these.
        ProgramError: where the programs do not pair.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("person", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> def guide(y): pyro.sample("mu", dist.Normal(0.65, 0.408))
        >>> y = torch.tensor([1.2, -0.4, 0.7, 2.1, 0.3])
        >>> data = to_arviz((model, guide), y, num_samples=100)
        >>> data["log_likelihood"]["y"].dims
        ('chain', 'draw', 'person')
    """
    with rehearsal():  # loading a run seeds the generators, too
        source, args, kwargs, known, constants = _source(fitted, args, kwargs)
        programs = (source.model, source.guide or nothing)
        with rehearsal(modules_of(*programs).values()), evaluating(*programs):
            pyro.set_rng_seed(seed)
            named = {**getattr(source.model, "dims", {}), **(dims or {})}
            reader = Reader(source, args, kwargs, num_samples, named)
            groups, attrs = reader.groups()
    groups["constant_data"] = dict(constants)
    return to_inference_data(groups, {**reader.coords, **known, **(coords or {})}, attrs)


class Reading(NamedTuple):
    """What there is to read, its arguments, the coordinates that are known of these, and what else is to be kept."""

    source: Source
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    coords: Mapping[str, Sequence[Any]] = {}
    constants: Mapping[str, Variable] = {}


def _source(fitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reading:
    if isinstance(fitted, MCMC):
        model = getattr(fitted.kernel, "model", None)
        if model is None:
            raise UsageError("the MCMC kernel was given a potential function and no model; give it the model instead")
        if fitted._samples is None:
            raise UsageError("the MCMC has no samples yet; call its run(...) first")
        return Reading(Source(model, None, fitted), args, kwargs)
    if isinstance(fitted, str | Path | Run):
        run = fitted if isinstance(fitted, Run) else Run.open(fitted)
        return (_of_policy if run.manifest.get("kind") == "control" else _of_recipe)(run)
    if isinstance(fitted, tuple) and len(fitted) == 2 and callable(fitted[0]):
        return Reading(Source(fitted[0], fitted[1], None), args, kwargs)
    found = type(fitted).__name__
    raise UsageError(f"to_arviz takes a pair (model, guide), an MCMC, or a run directory; found {found}")


def _of_recipe(run: Run) -> Reading:
    recipe = Recipe.from_json(run.manifest)
    if recipe.data_b is not None:
        raise UsageError(f"{run.path} holds a translation between two domains, which has no posterior to analyse")
    model, guide = load(run)
    dataset = recipe.dataset_of(run.manifest)
    split = "test" if dataset.num_data("test") else "train"
    columns = dataset.eval_columns(split)
    size = RUN_DOCUMENTS if isinstance(dataset, Corpus) else RUN_ROWS
    rows = {
        name: take(columns[name], torch.arange(min(size, len(columns[name])))).to_dense()
        for name in accepted_columns(model, list(columns))
    }
    known: dict[str, Sequence[Any]] = {}
    if isinstance(dataset, Corpus):
        known = {"word": dataset.vocabulary, "document": dataset.titles.get(split, ())[:size]}
    return Reading(Source(model, guide, None), (), rows, known)


def _of_policy(run: Run) -> Reading:
    """Take states of an evaluation's episodes, evenly from all of them, as steps of so many environments."""
    model, guide = programs = load(run)
    with closing(stage_of(run, ControlRecipe.from_json(run.manifest), AT_ONCE, EVALUATION_SEED)) as stage:
        episodes = played(programs, stage, AT_ONCE, False)
    states = episodes.steps["observation"][episodes.episode >= 0]
    chosen = torch.linspace(0, len(states) - 1, min(RUN_ROWS, len(states))).round().long()
    observation = states[chosen].unsqueeze(0)
    further = (f"observation_dim_{i}" for i in range(states.dim() - 1))
    constants = {"observation": Variable(observation.numpy(), ("time", "environments", *further))}
    return Reading(Source(model, guide, None), (), {"observation": observation}, constants=constants)
