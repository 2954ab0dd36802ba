"""Fits that give each datum a density, and the data that they score."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pyrogen.arguments import prepared_alike
from pyrogen.card import roles_of, rows_at_once
from pyrogen.data import Batches, Corpus, Dataset, Sounds, Text, Unpaired
from pyrogen.data.splits import rows_of_splits
from pyrogen.errors import PyrogenError, UsageError
from pyrogen.evaluation import log_densities
from pyrogen.loading import load, load_objective
from pyrogen.recipe import Programs, Recipe, is_path
from pyrogen.runs import Run
from pyrogen.spec import DataSpec

__all__ = ["Ranked", "Scorer", "data_to_rank", "held_out", "scorer"]

BATCH = 500


class Scorer(NamedTuple):
    """A fit whose data have a density.

    Attributes:
        recipe: how it was fitted.
        dataset: what it was fitted to.
        fingerprint: of these data and their splits.
        programs: with the parameters that were fitted.
    """

    recipe: Recipe
    dataset: Dataset
    fingerprint: str
    programs: Programs

    def log_p(self, x: Tensor, num_particles: int) -> Tensor:
        """Return the exact log-density of each datum, or its importance-weighted bound, in nats, shape ``(data,)``."""
        if not len(x):
            return x.new_zeros(0)
        model, guide = self.programs
        batches = self._batches(x)
        roles = roles_of(model, batches, guide)
        guide = guide if roles.has_latents else None
        return log_densities(model, guide, batches, num_particles, propose=roles.has_implicit_guide)

    def check(self, x: Tensor, is_by_samples: bool) -> None:
        """Refuse a fit that says nothing of how probable a datum is.

        Raises:
            UsageError: with the reason.
        """
        name = self.recipe.model.name
        if "y" in getattr(self.programs.model, "covariates", ()):
            raise UsageError(
                f"{name} models data given their labels: fit it without labels, to judge data that have none"
            )
        roles = roles_of(self.programs.model, self._batches(x), self.programs.guide)
        why = None
        if roles.is_implicit:
            why = "its draws have no density"
        elif is_by_samples:
            why = f"{self.recipe.objective.name} compared its draws with data, and did not fit its density"
        elif list(roles.observed) != ["x"]:
            why = "it gives labels a probability, and not the data"
        elif roles.shares_latents:
            why = "its latents are shared by all data, so that a datum has no density of its own"
        if why is not None:
            raise UsageError(
                f"{name} cannot tell outliers: {why}. Models whose data have a density do, such as vae, "
                f"gaussian-mixture and pixelcnn-pp"
            )

    def _batches(self, x: Tensor) -> Batches:
        size = min(BATCH, rows_at_once(self.dataset.spec))
        return Batches({"x": x}, size, shuffle=False, name=self.dataset.name)


def scorer(path: str | Path, device: str, like: Scorer | None = None, is_member: bool = False) -> Scorer:
    """Load a fit, and make sure that it gives each datum a density.

    Args:
        path: a run directory.
        device: where to run.
        like: the fit beside which it scores the same data.
        is_member: whether it must be fitted to the very data of that one.

    Raises:
        UsageError: where it cannot, with the reason.
    """
    run = Run.open(path)
    recipe = Recipe.from_json(run.manifest).on(device)
    dataset = recipe.dataset_of(run.manifest)
    if isinstance(dataset, Unpaired | Corpus | Text):
        kind = {Unpaired: "a translation", Text: "a text"}.get(type(dataset), "documents")
        raise UsageError(
            f"{path}: outliers are data among others of one shape, each with a density, and {dataset.name} is {kind}. "
            f"Give a run on images, sounds or a table"
        )
    if like is not None:
        _check_beside(path, run, recipe, dataset, like, is_member)
    programs = load(run, device=device)
    found = Scorer(recipe, dataset, run.manifest["fingerprint"], programs)
    objective = load_objective(run, recipe, dataset, programs)
    found.check(dataset.eval_columns("train")["x"][:2], objective.by_samples)
    return found


def _check_beside(path: str | Path, run: Run, recipe: Recipe, dataset: Dataset, like: Scorer, is_member: bool) -> None:
    check_spec(dataset.spec, like.dataset.spec, f"{path} was fitted to {dataset.name},")
    same = run.manifest["fingerprint"] == like.fingerprint
    if not same and recipe.data.name == like.recipe.data.name:
        raise UsageError(
            f"{path} was fitted to {dataset.name} in another cut, so that it has seen data that are held out from the "
            f"other run. Fit both with one --data-seed, --validation, --test and --pixels, whatever their --seed is"
        )
    if is_member and not same:
        raise UsageError(f"{path} was fitted to {dataset.name}, and the others of the ensemble to other data")


def check_spec(found: DataSpec, expected: DataSpec, what: str) -> None:
    """Refuse data of another shape or kind, whose densities could not be compared.

    Raises:
        UsageError: with both.
    """
    names = ("shape", "kind", "levels", "sample_rate", "symbols")
    (a, b) = ({name: getattr(spec, name) for name in names} for spec in (found, expected))
    if differ := [name for name in names if a[name] != b[name]]:
        of = [", ".join(f"{name} {values[name]}" for name in differ) for values in (a, b)]
        raise UsageError(f"{what} of {of[0]}, and the run's data are of {of[1]}: densities can be compared of one kind")


def held_out(model: Scorer, split: str) -> Tensor:
    """Return the data of a split.

    Raises:
        UsageError: where there are none.
    """
    x = model.dataset.eval_columns(split)["x"]
    if not len(x):
        raise UsageError(f"the run has no {split} data to compare with: choose another --split")
    return x


class Ranked(NamedTuple):
    """Data to rank.

    Attributes:
        x: their values, shape ``(data, *event)``.
        of: what they are, for a person.
        is_own: whether they are data of the run itself.
    """

    x: Tensor
    of: str
    is_own: bool


def data_to_rank(name: str, model: Scorer, split: str) -> Ranked:
    """Load data by a name or path, prepared as those of a run.

    Of a path, unless it comes with test data, all data are taken, in the order in which they are there; else those of
    the split.

    Raises:
        UsageError: where they are of another shape or kind, or there are none.
        PyrogenError: where they are unknown, missing or unfit.
    """
    recipe, spec = model.recipe, model.dataset.spec
    settings = {key: value for key, value in recipe.data.settings.items() if key != "labels"}
    named = prepared_alike(name, settings)
    if named.name == recipe.data.name:
        return Ranked(held_out(model, split), f"the {split} split of {model.dataset.name}", True)
    if is_path(name):
        levels = {"levels": spec.levels} if spec.kind == "levels" and spec.sample_rate is None else {}
        named = replace(named, settings=levels | named.settings | {"validation": 0.0, "test": 0.0})
    dataset = _prepared(replace(recipe, data=named), f"{name} is prepared as the run's data, {recipe.data.name}, were")
    check_spec(dataset.spec, spec, f"{name} are data")
    if is_path(name) and not dataset.num_data("test"):
        x = dataset.eval_columns("train")["x"]
        if not isinstance(dataset, Sounds):
            seed = named.settings.get("seed", recipe.seed)
            x = x[rows_of_splits(len(x), name, 0.0, 0.0, seed)[0].argsort()]
        return Ranked(x, f"data of {dataset.name}", False)
    if not dataset.num_data(split):
        raise UsageError(f"{name} has no {split} data to rank: choose another --split")
    return Ranked(dataset.eval_columns(split)["x"], f"{split} data of {dataset.name}", False)


def _prepared(recipe: Recipe, note: str) -> Dataset:
    """Load the data of a recipe, and say by whose settings where they do not bear them."""
    try:
        dataset = recipe.dataset()
    except PyrogenError as error:
        error.add_note(note)
        raise
    assert isinstance(dataset, Dataset)
    return dataset
