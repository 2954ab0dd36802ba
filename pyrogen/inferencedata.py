"""Groups of named arrays as ArviZ has them: ``InferenceData`` before its version 1, a ``DataTree`` from then on.

This module needs NumPy, xarray and ArviZ, and no torch.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # each major version announces the other at import
    import arviz

    IS_TREE = int(arviz.__version__.partition(".")[0]) >= 1
    if IS_TREE:
        from arviz_stats.base import array_stats

from pyrogen.errors import CorruptCheckpointError, MissingInputError

__all__ = ["Variable", "is_constant", "pareto_k", "read_netcdf", "summary", "to_inference_data", "write_netcdf"]


class Variable(NamedTuple):
    """An array with a name for each of its dimensions, and what else is to be said of it."""

    values: NDArray[Any]
    dims: tuple[str, ...]
    attrs: dict[str, Any] = {}  # noqa: RUF012


def to_inference_data(
    groups: Mapping[str, Mapping[str, Variable]],
    coords: Mapping[str, Any],
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """Put groups of variables together as the installed ArviZ wants them.

    Args:
        groups: group name (posterior, log_likelihood, ...) to variables by name; empty groups are left out.
        coords: dimension name to coordinates, for as many dimensions as have them; others are numbered.
        attrs: group name to what else is to be said of it.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x).

    Example:
        >>> draws = Variable(np.zeros((1, 4, 2)), ("chain", "draw", "school"))
        >>> data = to_inference_data({"posterior": {"theta": draws}}, {"school": ["A", "B"]})
        >>> data["posterior"]["theta"].sel(school="B").shape
        (1, 4)
    """
    stamp = {"created_at": datetime.now(UTC).isoformat(timespec="seconds"), "inference_library": "pyrogen"}
    datasets = {}
    for group, variables in groups.items():
        if not variables:
            continue
        arrays = {name: (v.dims, v.values, v.attrs) for name, v in variables.items()}
        sizes = {dim: size for v in variables.values() for dim, size in zip(v.dims, v.values.shape, strict=True)}
        used = {dim: np.asarray(coords[dim]) if dim in coords else np.arange(size) for dim, size in sizes.items()}
        datasets[group] = xarray.Dataset(arrays, used, {**stamp, **(attrs or {}).get(group, {})})
    if IS_TREE:
        return xarray.DataTree.from_dict(datasets)
    return arviz.InferenceData(**datasets)


def write_netcdf(data: Any, path: str | Path) -> None:
    """Write what :func:`to_inference_data` made; both major versions of ArviZ read it by ``az.from_netcdf``."""
    data.to_netcdf(str(path), engine="h5netcdf")


def read_netcdf(path: str | Path) -> Any:
    """Read a file of :func:`write_netcdf`.

    Raises:
        MissingInputError: where there is none.
        CorruptCheckpointError: where it cannot be read.
    """
    if not Path(path).exists():
        raise MissingInputError(f"there is no file {path}")
    try:
        return arviz.from_netcdf(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise CorruptCheckpointError(f"{path} is no netCDF file of ArviZ: {error}. Write it anew.") from error


def is_constant(log_weights: NDArray[Any]) -> bool:
    """Tell whether importance weights along the last dimension are equal, up to rounding: the guide is exact."""
    log_weights = np.asarray(log_weights)
    if not np.isfinite(log_weights).all():
        return False
    spread, magnitude = np.ptp(log_weights, axis=-1), np.abs(log_weights).max(axis=-1)
    return bool(np.all(spread <= 1e-5 + 64 * np.finfo(log_weights.dtype).eps * magnitude))


def pareto_k(log_weights: NDArray[Any]) -> NDArray[Any]:
    """Estimate the shape of the weights' tail: above 0.7, importance sampling from this guide is not to be trusted.

    Args:
        log_weights: in nats, shape ``(..., draws)``; any additive constant.

    Returns:
        Shape ``(...)``; NaN for weights that are constant, of which a tail estimate would be rounding noise.

    References:
        Yes, but Did It Work?: Evaluating Variational Inference (Yao et al., 2018), https://arxiv.org/abs/1802.02538

        Pareto Smoothed Importance Sampling (Vehtari et al., 2024), https://jmlr.org/papers/v25/19-556.html

    Example:
        >>> bool(np.isnan(pareto_k(np.full(100, -3.0))))
        True
    """
    flat = np.asarray(log_weights).reshape(-1, np.shape(log_weights)[-1])
    shapes = np.array([np.nan if is_constant(row) else _tail_shape(row.astype(np.float64)) for row in flat])
    return shapes.reshape(np.shape(log_weights)[:-1])[()]


def _tail_shape(row: NDArray[Any]) -> float:
    row = row - row.max()
    with np.errstate(over="ignore"):  # in fits of a very heavy tail, whose candidates' weights are 1 / infinity there
        return float(array_stats.psislw(-row)[1] if IS_TREE else arviz.psislw(row)[1])


def summary(data: Any, names: Sequence[str]) -> Any:
    """Return ArviZ's table of the named variables: means, standard deviations, intervals, Monte Carlo errors."""
    logging.disable(logging.WARNING)  # a guide's draws are one chain, and independent: no convergence to warn of
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return arviz.summary(data, var_names=list(names)).dropna(axis="columns", how="all")
    finally:
        logging.disable(logging.NOTSET)
