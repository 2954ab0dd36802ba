"""A model on top of another: what a fitted guide makes of data, as data."""

from dataclasses import replace

import torch
from pyro import poutine
from torch import Tensor

from pyrogen.data import Batches, Dataset, keep_labels
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.likelihood import of_each
from pyrogen.evaluation.representation import ACTIVE
from pyrogen.loading import load
from pyrogen.recipe import Recipe
from pyrogen.runs import Run
from pyrogen.sites import Program, is_latent, sample_sites

__all__ = ["encoded", "features"]


def encoded(guide: Program, dataset: Dataset) -> Dataset:
    r"""Return latents in the place of data: M1 below, any model above.

    .. math:: x'_n \sim q(z \mid x_n)

    Training data are drawn anew in every batch, held-out data are means. Latents whose mean does not depend on the
    datum are left out.

    Args:
        guide: a Pyro program whose latents, one row a datum in plate ``data``, have means and variances.
        dataset: what the guide encodes; labels stay as they are.

    Returns:
        Vectors of reals.

    Raises:
        ProgramError: where a latent has no moments, or none depends on the datum.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Example:
        >>> from pyrogen.data import digits
        >>> from pyrogen.models import vae
        >>> _, guide = vae(digits().spec, latent=4, hidden=(8,))
        >>> data = encoded(guide, digits())
        >>> data.spec.kind, data.num_data("train")
        ('real', 1437)
    """
    parts = {name: _moments(guide, dataset, name) for name in ("train", "validation", "test")}
    kept = parts["train"][0].var(0) > ACTIVE
    if not kept.any():
        raise ProgramError("no latent's mean depends on the datum: fit the guide first, or for longer")
    train, validation, test = (
        {**dataset.split(name), "x": torch.stack([mean, scale], 1)[..., kept] if name == "train" else mean[:, kept]}
        for name, (mean, scale) in parts.items()
    )
    spec = replace(dataset.spec, shape=(int(kept.sum()),), kind="real", levels=None, name=f"{dataset.name}, encoded")
    return Dataset(spec.name, train, validation, test, spec, _drawn)


def _drawn(moments: Tensor) -> Tensor:
    """Draw codes, given means and standard deviations of shape ``(batch, 2, latents)``."""
    mean, scale = moments.unbind(1)
    return mean + scale * torch.randn_like(mean)


def _moments(guide: Program, dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations of a split's latents, all sites side by side."""

    def of_batch(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        means, scales = [], []
        for site in filter(is_latent, sample_sites(poutine.trace(guide).get_trace(**batch))):
            try:
                mean, variance = site["fn"].mean, site["fn"].variance
            except (NotImplementedError, AttributeError) as error:
                raise ProgramError(
                    f"latent {site['name']!r} has no mean or no variance: encode by a guide that has, such as a VAE's "
                    f"with --encoder gaussian"
                ) from error
            means.append(mean.reshape(len(mean), -1).cpu())
            scales.append(variance.sqrt().reshape(len(mean), -1).cpu())
        return torch.cat(means, 1), torch.cat(scales, 1)

    columns = dataset.eval_columns(split)
    if not len(columns["x"]):
        raise UsageError(f"{dataset.name} has no {split} data to encode: give this split a fraction above 0")
    found = of_each(Batches(columns, 500, shuffle=False, only=["x"]), of_batch, guide)
    mean, scale = (torch.cat(parts) for parts in zip(*found, strict=True))
    return mean, scale


def features(*, run: str, labels: int | None = None, seed: int = 0) -> Dataset:
    """Load what the guide of a run makes of its data, for a model on top: M1 + M2.

    Args:
        run: the directory of a run whose guide has means and variances, such as a VAE's.
        labels: how many training data keep their label; all by default.
        seed: of which these are.

    Raises:
        UsageError: where the run has no guide, or there are not as many labels.
        MissingInputError: where there is no such run.
    """
    opened = Run.open(run)
    dataset = Recipe.from_json(opened.manifest).dataset_of(opened.manifest)
    guide = load(opened).guide
    if guide is None or not isinstance(dataset, Dataset):
        raise UsageError(f"{run}: there is no guide to encode data by; give the run of a model such as vae")
    codes = encoded(guide, dataset)
    return codes if labels is None else keep_labels(codes, labels, seed)
