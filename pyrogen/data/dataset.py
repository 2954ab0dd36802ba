"""A data set: three splits of named columns, what a model must know of them, and how batches are drawn."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from pyrogen.counts import parts
from pyrogen.data.batches import Batches
from pyrogen.data.checks import nearest
from pyrogen.errors import UsageError
from pyrogen.spec import DataSpec

__all__ = ["SPLITS", "Columns", "Dataset", "Transform"]

Columns = dict[str, Tensor]
Transform = Callable[[Tensor], Tensor]

SPLITS = ("train", "validation", "test")


def to_float(x: Tensor) -> Tensor:
    """Return ``x`` in float32, the dtype that every program is given."""
    return x.to(torch.float32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold the splits of one data set; all three are fixed once this object exists.

    Attributes:
        name: what the data are called.
        train: columns ``"x"`` of shape ``(N, *spec.shape)``, uint8 for whole numbers and float32 for reals, and
            ``"y"`` of shape ``(N,)``, int64, where the data have labels.
        validation: the same columns; may have no rows.
        test: the same columns; may have no rows.
        spec: shape and kind of ``x`` *as a model sees it*, after ``transform``.
        transform: what is drawn anew for ``x`` in every training batch, from the global generator of torch
            (dynamic binarisation, dequantisation); ``None`` where nothing is.
        pixels: the name of the pixel choice that was made, see :data:`pyrogen.data.pixels.PIXELS`.

    Example:
        >>> from pyrogen.data import digits
        >>> data = digits(pixels="static-binary")
        >>> data.spec.kind, next(iter(data.batches(32)))["x"].shape
        ('binary', torch.Size([32, 1, 8, 8]))
    """

    name: str
    train: Columns
    validation: Columns
    test: Columns
    spec: DataSpec
    transform: Transform | None = None
    pixels: str | None = None

    def split(self, name: str) -> Columns:
        """Return the stored columns of ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            UsageError: no split has this name.
        """
        if name not in SPLITS:
            raise UsageError(f"no split is called {name!r}; expected one of {', '.join(SPLITS)}{nearest(name, SPLITS)}")
        columns: Columns = getattr(self, name)
        return columns

    def num_data(self, split: str) -> int:
        """Return how many data a split has."""
        return len(self.split(split)["x"])

    def batches(
        self,
        batch_size: int,
        split: str = "train",
        *,
        shuffle: bool | None = None,
        drop_last: bool = False,
        only: Sequence[str] | None = None,
    ) -> Batches:
        """Draw batches ``{"x": float32 (B, *shape), "y": int64 (B,)}``.

        Training batches are shuffled and pass through ``transform``. Batches of the other splits are in order, and
        their values are the same in every epoch.

        Raises:
            UsageError: an unknown split or column, or ``batch_size < 1``.
            DataError: the split has no rows, or fewer than ``batch_size`` under ``drop_last``.
        """
        training = split == "train"
        return Batches(
            self.split(split),
            batch_size,
            shuffle=training if shuffle is None else shuffle,
            drop_last=drop_last,
            transform=self.transform if training and self.transform is not None else to_float,
            only=only,
            name=f"{self.name}, {split} split",
        )

    def eval_columns(self, split: str = "validation") -> Columns:
        """Return a whole split with ``x`` in float32, equal in every call.

        For the training split of data that are drawn anew in every batch this is one fixed draw, so that a figure
        of the training set can be repeated. The global generator is left as it was found.
        """
        columns = dict(self.split(split))
        if split != "train" or self.transform is None:
            return columns | {"x": to_float(columns["x"])}
        # A transform draws from the global generator: seed it for one draw and put it back, on the CPU only
        # (torch.manual_seed would reseed the accelerators as well).
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(0)
            return columns | {"x": self.transform(columns["x"])}
        finally:
            torch.set_rng_state(state)

    def describe(self) -> str:
        """Say in one line what was found.

        Example:
            >>> from pyrogen.data import digits
            >>> print(digits().describe())
            digits: 1,437 train + 180 validation + 180 test, x (1, 8, 8) uint8 in 0..16, levels (17), 10 classes
        """
        counts = " + ".join(f"{len(self.split(name)['x']):,} {name}" for name in SPLITS)
        stored = self.train["x"]
        kind: str = self.spec.kind
        if self.spec.levels is not None and kind != "binary":
            kind += f" ({self.spec.levels})"
        drawn = f" by {self.pixels!r}" if self.pixels not in (None, "levels") else ""
        drawn += ", drawn anew in every batch" if self.transform is not None else ""
        labels = "no labels" if self.spec.num_classes is None else f"{self.spec.num_classes} classes"
        labels += "" if self.spec.num_labelled is None else f", {self.spec.num_labelled:,} labels known"
        found = f"x {self.spec.shape} {str(stored.dtype).removeprefix('torch.')} in {self._range()}"
        share = float(stored.isnan().double().mean()) if stored.is_floating_point() else 0.0
        found += f", {share:.0%} missing" if share else ""
        return f"{self.name}: {counts}, {found}, {kind}{drawn}, {labels}"

    def _range(self) -> str:
        # Where training values are drawn anew they are stored as levels, the others as what was drawn.
        splits = SPLITS if self.transform is None else SPLITS[:1]
        found = (self.split(name)["x"] for name in splits)
        values = [x for x in (x[~x.isnan()] if x.is_floating_point() else x for x in found) if len(x)]
        low = min(float(x.min()) for x in values)
        high = max(float(x.max()) for x in values)
        return f"{low:.4g}..{high:.4g}"

    def fingerprint(self) -> str:
        """Return the SHA-256 (hexadecimal) of all bytes, shapes, dtypes and the spec: equal data, equal fingerprint."""
        spec = {key: value for key, value in self.spec.to_json().items() if key != "num_data"}  # as many as there are
        head = {"name": self.name, "spec": spec, "pixels": self.pixels}
        digest = sha256(json.dumps(head, sort_keys=True).encode())
        for split in SPLITS:
            for column, values in sorted(self.split(split).items()):
                digest.update(f"|{split}/{column}/{values.dtype}/{tuple(values.shape)}|".encode())
                for part in parts(values):
                    digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()
