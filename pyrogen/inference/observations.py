"""What entries for the command line read off a policy and a model, to make critics that go with them."""

from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.parameters import owners
from pyrogen.sites import Program

__all__ = ["num_observations", "scale_of_values"]


def num_observations(guide: Program | None, observation: Tensor) -> int | None:
    """Return how many different observations there are, by a table of the policy's; ``None`` of real numbers.

    Raises:
        UsageError: where observations are whole numbers, and the policy has no table.
    """
    if observation.is_floating_point():
        return None
    tables = [part for owner in owners(guide).values() for part in owner.modules() if isinstance(part, nn.Embedding)]
    if not tables:
        raise UsageError(
            "observations are whole numbers, and how many there are is told by an nn.Embedding of the policy's, which "
            "has none: give it one, or build the objective and its critic in Python"
        )
    return tables[0].num_embeddings


def scale_of_values(model: Program) -> float:
    """Return one over the model's ``temperature``, or one where it has no attribute of that name."""
    return 1 / getattr(model, "temperature", 1.0)
