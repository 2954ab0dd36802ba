"""A fit of a model to data, ready to be driven."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from pyrogen.card import bound, inspect
from pyrogen.data import Dataset, Unpaired
from pyrogen.errors import UsageError
from pyrogen.inference import Training
from pyrogen.parameters import modules_of
from pyrogen.recipe import Programs, Recipe
from pyrogen.rehearsal import rehearsal

__all__ = ["DatasetFit"]


class DatasetFit(NamedTuple):
    """A recipe with its data and programs.

    Attributes:
        recipe: what to do.
        dataset: the data that it names.
        programs: the model and the guide that it names, with fresh parameters.
    """

    recipe: Recipe
    dataset: Dataset | Unpaired
    programs: Programs

    @classmethod
    def begun(cls, recipe: Recipe) -> "DatasetFit":
        """Load the data and build the programs for a new run."""
        dataset = recipe.dataset()
        programs = recipe.programs(dataset.spec)
        return cls(recipe.decided(dataset, programs), dataset, programs)

    @classmethod
    def resumed(cls, recipe: Recipe, manifest: Mapping[str, Any]) -> "DatasetFit":
        """Load the data of a run, and refuse others, and build its programs."""
        dataset = recipe.dataset_of(manifest)
        return cls(recipe, dataset, recipe.programs(dataset.spec))

    def describe(self) -> str:
        """Say what it learns from."""
        return self.dataset.describe()

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of its run."""
        return self.recipe.to_json(self.dataset)

    def close(self) -> None:
        """Leave the data as they are: nothing is open."""

    def driven(self) -> tuple[Training, dict[str, Any]]:
        """Return the training, and how :func:`~pyrogen.fitting.fit` is to drive it."""
        recipe, dataset, programs = self
        if recipe.training.patience is not None and not dataset.num_data("validation"):
            raise UsageError("patience needs validation data: leave --patience out, or set --validation above 0")
        training = recipe.fit(dataset, programs)
        per_epoch = len(dataset.batches(recipe.training.batch_size))
        validate: Callable[[], tuple[str, float]] | None = None
        look: Callable[[], Mapping[str, float]] | None = None
        if dataset.num_data("validation"):
            by_samples = training.objective.by_samples
            validate = partial(self._validated, by_samples)
            look = partial(inspect, *programs, dataset, "validation", by_samples=by_samples)
            with rehearsal(modules_of(*programs).values()):
                validate()  # what cannot be validated is refused now, and not after some hundred steps
        return training, {
            "validate": validate,
            "inspect": look,
            "evaluate_every": recipe.training.evaluate_every or max(100, per_epoch),
            "log_every": recipe.training.log_every,
            "patience": recipe.training.patience,
            "per_datum": training.objective.sums_over_data and getattr(programs.model, "num_data", True),
        }

    def _validated(self, by_samples: bool) -> tuple[str, float]:
        name, estimate = bound(*self.programs, self.dataset, "validation", by_samples=by_samples)
        return name, estimate.value
