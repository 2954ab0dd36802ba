"""What a model needs to know of the data before it sees them."""

from dataclasses import asdict, dataclass
from math import log, prod
from typing import Any, Literal

import torch
from torch import Tensor

from pyrogen.errors import UsageError

__all__ = ["DataSpec", "check_vectors", "num_labels", "one_hot", "scaled", "unscaled"]

Kind = Literal["binary", "levels", "dequantized", "real", "counts"]

LATER = frozenset(["sample_rate", "symbols", "num_labelled"])


@dataclass(frozen=True)
class DataSpec:
    r"""Shape and kind of a data set, shared by data loaders and model factories.

    Attributes:
        shape: shape of one datum ``x``, for example ``(1, 28, 28)`` (channels first) or ``(4,)``.
        kind: what the values are.

            - ``"binary"``: 0 or 1;
            - ``"levels"``: whole numbers :math:`0, \dots, L - 1`;
            - ``"dequantized"``: :math:`(k + u) / L` with :math:`u \sim U(0, 1)`, in the unit interval;
            - ``"real"``: any finite numbers;
            - ``"counts"``: how often each word stands in a document.
        levels: the number :math:`L` of levels that the values have, or had before dequantisation; ``None`` for reals.
        num_classes: the number of classes of the label ``y``; ``None`` without labels.
        name: what the data are called.
        num_data: the number of training data, for models whose latents are shared by all of them; ``None`` where it was
            not counted.
        sample_rate: samples a second of sounds, whose levels are those of mu-law; ``None`` of other data.
        symbols: the characters, or :data:`~pyrogen.alphabet.BYTES`, that a text's levels stand for; ``None`` of other
            data.
        num_labelled: how many training data have a label that is known; ``None`` where all have one, or none.

    Example:
        >>> DataSpec((1, 8, 8), "levels", levels=17).num_dims
        64
    """

    shape: tuple[int, ...]
    kind: Kind
    levels: int | None = None
    num_classes: int | None = None
    name: str = "data"
    num_data: int | None = None
    sample_rate: int | None = None
    symbols: tuple[str, ...] | None = None
    num_labelled: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if self.symbols is not None:
            object.__setattr__(self, "symbols", tuple(self.symbols))
        if self.kind == "binary":
            object.__setattr__(self, "levels", 2)
        if self.kind in ("levels", "dequantized") and (self.levels is None or self.levels < 2):
            raise ValueError(f"data of kind {self.kind!r} need levels >= 2, found levels={self.levels}")

    @property
    def num_dims(self) -> int:
        """The number of values in one datum."""
        return prod(self.shape)

    def bits_per_dim(self, log_p: float) -> float | None:
        r"""Turn nats per datum into bits per dimension of the discrete data; ``None`` where data are not discrete.

        .. math:: -\frac{\log p(x)}{D \log 2} \quad (+ \log_2 L \text{ where dequantised})

        Example:
            >>> round(DataSpec((784,), "levels", levels=256).bits_per_dim(-1945.6), 4)
            3.5802
        """
        if self.levels is None or self.kind == "real":
            return None
        shift = log(self.levels) if self.kind == "dequantized" else 0.0
        return (shift - log_p / self.num_dims) / log(2)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without those that came after the first runs and are not set."""
        fields = asdict(self) | {"shape": list(self.shape)}
        fields["symbols"] = None if self.symbols is None else list(self.symbols)
        return {key: value for key, value in fields.items() if value is not None or key not in LATER}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "DataSpec":
        """The inverse of :meth:`to_json`."""
        return cls(**(fields | {"shape": tuple(fields["shape"])}))


def check_vectors(spec: DataSpec, model: str) -> None:
    """Refuse data that are not vectors of reals, on behalf of a model.

    Raises:
        UsageError: with what the data are.
    """
    if spec.kind != "real" or len(spec.shape) != 1:
        raise UsageError(
            f"{model} needs vectors of reals, and {spec.name} are of kind {spec.kind!r}, shape {spec.shape}"
        )


def num_labels(spec: DataSpec, conditional: bool) -> int:
    """Return how many labels there are to condition on; none where that is not asked for.

    Raises:
        UsageError: where it is, and the data have none.
    """
    if not conditional:
        return 0
    if spec.num_classes is None:
        raise UsageError(
            f"conditional needs labels, and {spec.name} has none: leave it out, or give the data a column y, or a "
            f"folder for each class"
        )
    return spec.num_classes


def one_hot(labels: Tensor, spec: DataSpec) -> Tensor:
    """Write labels of shape ``(batch,)`` as vectors of shape ``(batch, num_classes)``, without a look at their values.

    Example:
        >>> one_hot(torch.tensor([1, 0]), DataSpec((4,), "real", num_classes=2))
        tensor([[0., 1.],
                [1., 0.]])
    """
    assert spec.num_classes is not None
    classes = torch.arange(spec.num_classes, device=labels.device)
    return (labels.unsqueeze(-1) == classes).to(torch.get_default_dtype())


def scaled(x: Tensor, spec: DataSpec) -> Tensor:
    """Scale data of bounded kinds to :math:`[-1, 1]`; leave reals as they are."""
    return x if spec.kind == "real" else x * (2 / _top(spec)) - 1


def unscaled(x: Tensor, spec: DataSpec) -> Tensor:
    """Bring values from :math:`[-1, 1]` to the range of data of bounded kinds; the inverse of :func:`scaled`."""
    return x if spec.kind == "real" else (x + 1) * (_top(spec) / 2)


def _top(spec: DataSpec) -> int:
    return 1 if spec.kind == "dequantized" or spec.levels is None else spec.levels - 1
