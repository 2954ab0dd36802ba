"""Two data sets whose rows do not belong to each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from pyrogen.data.batches import Batches
from pyrogen.data.dataset import Columns, Dataset
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec

__all__ = ["Unpaired", "UnpairedBatches"]

DOMAINS = ("a", "b")


class UnpairedBatches:
    """Iterate over batches ``{"a": ..., "b": ...}`` with as many rows of the one as of the other.

    An epoch goes once through the longer data; the shorter ones are gone through again, in another order. All orders
    are drawn from the *global* generator of torch when the epoch begins, for the reason that
    :class:`~pyrogen.data.Batches` gives.

    Args:
        a: batches of the one domain, of its column ``"x"``; their size is that of all.
        b: batches of the other, likewise.
        drop_last: leave out a last batch that is not full.

    Raises:
        DataError: ``batch_size`` exceeds the rows of the longer data under ``drop_last``.

    Example:
        >>> a, b = (Batches({"x": torch.arange(n)}, 2, shuffle=False) for n in (5, 3))
        >>> for batch in UnpairedBatches(a, b):
        ...     print(batch["a"].tolist(), batch["b"].tolist())
        [0, 1] [0, 1]
        [2, 3] [2, 0]
        [4] [1]
    """

    def __init__(self, a: Batches, b: Batches, drop_last: bool = False) -> None:
        self.domains = {"a": a, "b": b}
        self.batch_size, self.drop_last = a.batch_size, drop_last
        self.num_data = max(a.num_data, b.num_data)
        if drop_last and self.batch_size > self.num_data:
            raise DataError(
                f"no batch to draw, batch_size={self.batch_size} exceeds the {self.num_data} rows of the longer data "
                f"and drop_last leaves the rest out. Lower batch_size or set drop_last=False"
            )

    def __len__(self) -> int:
        full, rest = divmod(self.num_data, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        orders = {name: self._order(batches) for name, batches in self.domains.items()}
        for i in range(len(self)):
            batch = {}
            for name, batches in self.domains.items():
                rows = orders[name][i * self.batch_size : (i + 1) * self.batch_size]
                x = batches.columns["x"][rows]
                batch[name] = x if batches.transform is None else batches.transform(x)
            yield batch

    def _order(self, batches: Batches) -> Tensor:
        """Return as many rows as the longer data have: each of the shorter as often as the others, or once more."""
        draw = torch.randperm if batches.shuffle else torch.arange
        times = -(-self.num_data // batches.num_data)
        return torch.cat([draw(batches.num_data, device="cpu") for _ in range(times)])[: self.num_data]


@dataclass(frozen=True, eq=False)
class Unpaired:
    """Hold two data sets of one kind, of any lengths, as the domains ``a`` and ``b`` of a translation.

    It is used like a :class:`Dataset` with columns ``"a"`` and ``"b"``; labels are left out.

    Attributes:
        a: the one domain.
        b: the other.

    Raises:
        DataError: where shapes, kinds or levels differ.

    Example:
        >>> from pyrogen.data import digits
        >>> data = Unpaired(digits(), digits(seed=1))
        >>> sorted((name, tuple(x.shape)) for name, x in next(iter(data.batches(32))).items())
        [('a', (32, 1, 8, 8)), ('b', (32, 1, 8, 8))]
    """

    a: Dataset
    b: Dataset

    def __post_init__(self) -> None:
        for what, fix in (
            ("shape", "choose others; images of folders are resized by --size (size=), and grey by --grayscale true"),
            ("kind", "prepare both in the same way, or name one choice of --pixels (pixels=) for both"),
            ("levels", "say how many there are with --levels (levels=)"),
        ):
            one, other = (getattr(dataset.spec, what) for dataset in (self.a, self.b))
            if one != other:
                raise DataError(
                    f"data of two domains must be of one {what}: {self.a.name} (a) is of {what} {one}, {self.b.name} "
                    f"(b) of {other}. To mend it, {fix}"
                )

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.a.name} and {self.b.name}"

    @property
    def spec(self) -> DataSpec:
        """Shape and kind of a datum of either domain."""
        return replace(self.a.spec, num_classes=None, name=self.name)

    def split(self, name: str) -> Columns:
        """Return the stored columns ``"a"`` and ``"b"`` of a split, each of its own length."""
        return {"a": self.a.split(name)["x"], "b": self.b.split(name)["x"]}

    def num_data(self, split: str) -> int:
        """Return how many data the longer domain has in a split; none where a domain has none."""
        counts = [dataset.num_data(split) for dataset in (self.a, self.b)]
        return max(counts) if all(counts) else 0

    def batches(
        self,
        batch_size: int,
        split: str = "train",
        *,
        shuffle: bool | None = None,
        drop_last: bool = False,
        only: Sequence[str] | None = None,
    ) -> UnpairedBatches:
        """Draw batches ``{"a": float32 (B, *shape), "b": float32 (B, *shape)}``.

        Raises:
            UsageError: an unknown split, ``batch_size < 1``, or ``only`` one of the two.
            DataError: a domain has no rows there, or the longer has fewer than ``batch_size`` under ``drop_last``.
        """
        if only is not None and set(only) != set(DOMAINS):
            raise UsageError(f"{self.name}: batches are of both domains, a and b; found only={list(only)}")
        a, b = (data.batches(batch_size, split, shuffle=shuffle, only=["x"]) for data in (self.a, self.b))
        return UnpairedBatches(a, b, drop_last)

    def eval_columns(self, split: str = "validation") -> Columns:
        """Return a whole split of both domains in float32, equal in every call, each of its own length."""
        return {name: getattr(self, name).eval_columns(split)["x"] for name in DOMAINS}

    def describe(self) -> str:
        """Say in one line what was found."""
        return f"a: {self.a.describe()}; b: {self.b.describe()}"

    def fingerprint(self) -> str:
        """Return the SHA-256 (hexadecimal) of both fingerprints, in their order."""
        return sha256(f"{self.a.fingerprint()}/{self.b.fingerprint()}".encode()).hexdigest()
