"""Groups of named arrays as ArviZ has them: ``InferenceData`` before its version 1, a ``DataTree`` from then on.

This module needs NumPy, xarray and ArviZ, and no torch.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
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
        from arviz_stats import utils as arviz_utils
        from arviz_stats.base import array_stats

from pyrogen.errors import CorruptCheckpointError, MissingInputError

__all__ = [
    "Standing",
    "Variable",
    "is_constant",
    "pareto_k",
    "read_netcdf",
    "standings",
    "summary",
    "to_inference_data",
    "write_netcdf",
]


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


class Standing(NamedTuple):
    r"""How a model does beside others on the same held-out data, in nats, totals over the data.

    Attributes:
        rank: 1 is the best.
        elpd: :math:`\sum_n \log p(x_n)`, the expected log pointwise predictive density, as held-out data estimate it.
        elpd_diff: what it has more than the best: zero, or less.
        se: standard error of ``elpd`` over the data.
        dse: that of ``elpd_diff``, which is much smaller where models find the same data hard.
        weight: the model's share in the mixture of all that predicts these data best (stacking).
    """

    rank: int
    elpd: float
    elpd_diff: float
    se: float
    dse: float
    weight: float


def standings(values: Mapping[str, NDArray[Any]]) -> dict[str, Standing]:
    r"""Compare models by what each says of the same held-out data, by ArviZ's ``compare``.

    .. math::
        \Delta_m = \sum_n (\ell_{mn} - \ell_{bn}), \qquad
        \mathrm{dse}_m = \sqrt{N \operatorname{Var}_n(\ell_{mn} - \ell_{bn})}

    with :math:`b` the best model, and weights that maximise :math:`\sum_n \log \sum_m w_m \exp \ell_{mn}`.

    Args:
        values: model name to :math:`\ell_{mn} = \log p_m(x_n)` in nats, shape ``(data,)``: the same data, in the same
            order.

    Returns:
        By model name, the best first.

    Raises:
        ValueError: where there are fewer than two models, their numbers of data differ or are below two, or a value is
            not finite.

    References:
        Practical Bayesian Model Evaluation Using Leave-One-Out Cross-Validation and WAIC (Vehtari et al., 2017),
        https://arxiv.org/abs/1507.04544

        Using Stacking to Average Bayesian Predictive Distributions (Yao et al., 2018),
        https://arxiv.org/abs/1704.02030

    Example:
        >>> found = standings({"a": np.array([-1.0, -2.0, -1.5]), "b": np.array([-2.0, -3.0, -2.5])})
        >>> [(name, s.rank, s.elpd, s.elpd_diff, s.dse) for name, s in found.items()]
        [('a', 1, -4.5, 0.0, 0.0), ('b', 2, -7.5, -3.0, 0.0)]
    """
    lengths = {name: len(of) for name, of in values.items()}
    if len(values) < 2 or len(set(lengths.values())) > 1 or min(lengths.values()) < 2:
        raise ValueError(f"expected values of two models or more for the same data, two or more; found {lengths}")
    table = np.array([np.asarray(of, dtype=np.float64) for of in values.values()])
    if not np.isfinite(table).all():
        raise ValueError("some values are not finite: leave out models that say of a datum that it cannot be")
    # ArviZ takes exponentials of what is said of each datum, which are zero for an image's -2000 nats. Weights and
    # differences are the same where each datum's best value is taken off; elpd and se are of the values themselves.
    beside = table - table.max(0)
    elpds = {name: _elpd(of, off) for name, of, off in zip(values, table, beside, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, to those who wrote ArviZ
        found = arviz.compare(elpds, method="stacking", **({"round_to": "none"} if IS_TREE else {}))
    elpd = "elpd" if IS_TREE else "elpd_loo"
    return {
        str(name): Standing(
            rank,  # from 1, where ArviZ's begin with 0
            float(row[elpd]),
            0.0 - abs(float(row["elpd_diff"])),  # its sign is another in each major version
            float(row["se"]),
            float(row["dse"]),
            float(row["weight"]),
        )
        for rank, (name, row) in enumerate(found.iterrows(), 1)
    }


def _elpd(values: NDArray[Any], beside: NDArray[Any]) -> Any:
    """Put held-out values into the place of what leaving each datum out would say of it."""
    total, se, count = float(values.sum()), float((len(values) * values.var()) ** 0.5), len(values)
    pointwise = xarray.DataArray(beside, dims="datum")
    if not IS_TREE:
        names = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale"]
        return arviz.ELPDData([total, se, np.nan, 1, count, False, pointwise, "log"], index=names)
    # The class of one kind came after one class for all.
    make = getattr(arviz_utils, "ELPDDataLOO", None) or partial(arviz_utils.ELPDData, kind="loo")
    return make(
        elpd=total,
        se=se,
        p=np.nan,
        n_samples=1,
        n_data_points=count,
        scale="log",
        warning=False,
        good_k=None,
        elpd_i=pointwise,
    )


def summary(data: Any, names: Sequence[str]) -> Any:
    """Return ArviZ's table of the named variables: means, standard deviations, intervals, Monte Carlo errors."""
    logging.disable(logging.WARNING)  # a guide's draws are one chain, and independent: no convergence to warn of
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return arviz.summary(data, var_names=list(names)).dropna(axis="columns", how="all")
    finally:
        logging.disable(logging.NOTSET)
