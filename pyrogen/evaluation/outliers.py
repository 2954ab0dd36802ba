r"""How far data lie from what fitted programs expect, from :math:`\log p(x)` of each; higher is more outlying for all.

A density alone is a poor judge: a model of images with much detail may find smooth images of another kind *more* likely
than its own (Do Deep Generative Models Know What They Don't Know?, Nalisnick et al., 2019,
https://arxiv.org/abs/1810.09136).
"""

import torch
from torch import Tensor

from pyrogen.errors import DataError
from pyrogen.evaluation.estimate import Estimate

__all__ = ["auroc", "likelihood_ratio", "negative_log_likelihood", "typicality", "watanabe_akaike"]


def negative_log_likelihood(log_p: Tensor) -> Tensor:
    r"""Score data by :math:`-\log p(x)`; higher is more outlying.

    Args:
        log_p: in nats, shape ``(data,)``, as of :func:`~pyrogen.evaluation.log_densities`.

    Returns:
        Scores of the same shape, in nats.

    Raises:
        DataError: where some are NaN.

    Example:
        >>> negative_log_likelihood(torch.tensor([-3.0, -8.0]))
        tensor([3., 8.])
    """
    return -_checked(log_p, "log_p")


def likelihood_ratio(log_p: Tensor, log_p_background: Tensor) -> Tensor:
    r"""Score data by how little a model says of them beyond a background model; higher is more outlying.

    .. math:: -\left(\log p(x) - \log p_\mathrm{bg}(x)\right)

    What both models say alike, such as how smooth an image is, is gone. A background model is one that was fitted to
    data with values replaced at random: see :func:`pyrogen.data.mutated`.

    Args:
        log_p: of the model, in nats, shape ``(data,)``.
        log_p_background: of the background model, likewise.

    Returns:
        Scores of shape ``(data,)``, in nats.

    Raises:
        DataError: where the shapes differ, some are NaN, or both models find a datum impossible.

    References:
        Likelihood Ratios for Out-of-Distribution Detection (Ren et al., 2019), https://arxiv.org/abs/1906.02845

    Example:
        >>> likelihood_ratio(torch.tensor([-3.0, -8.0]), torch.tensor([-5.0, -7.0]))
        tensor([-2.,  1.])
    """
    log_p, background = _checked(log_p, "log_p"), _checked(log_p_background, "log_p_background")
    if log_p.shape != background.shape:
        raise DataError(
            f"expected log-densities of the same data, found shapes {tuple(log_p.shape)} of the model and "
            f"{tuple(background.shape)} of the background"
        )
    return _checked(background - log_p, "the ratio")


def typicality(log_p: Tensor, log_p_held_out: Tensor) -> Tensor:
    r"""Score data by how far their likelihood is from the usual one, on either side; higher is more outlying.

    .. math:: \left| -\frac{1}{M} \sum_{m=1}^M \log p(x_m) - \hat{H} \right|, \qquad
        \hat{H} = -\frac{1}{N} \sum_{n=1}^N \log p(x'_n)

    Args:
        log_p: in nats, shape ``(data,)``; or ``(groups, M)`` for groups that are judged together, which tells smaller
            differences.
        log_p_held_out: of data :math:`x'` that are no outliers, and that the model was not fitted to, shape
            ``(held_out,)``.

    Returns:
        Scores of shape ``(data,)``, or ``(groups,)``, in nats.

    Raises:
        DataError: where some are NaN, there are no held-out data, or one of these is impossible.

    References:
        Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality (Nalisnick et al., 2019),
        https://arxiv.org/abs/1906.02994

    Example:
        >>> typicality(torch.tensor([-3.0, -8.0, -4.0]), torch.tensor([-4.0, -6.0]))
        tensor([2., 3., 1.])
    """
    held_out = _checked(log_p_held_out, "log_p_held_out")
    if not held_out.numel() or not held_out.isfinite().all():
        raise DataError(
            f"the usual likelihood is a mean over held-out data that the model finds possible: found {held_out.numel()}"
            f", of which {int((~held_out.isfinite()).sum())} are not finite"
        )
    values = -_checked(log_p, "log_p")
    return ((values if values.dim() < 2 else values.mean(-1)) + held_out.mean()).abs()


def watanabe_akaike(log_p: Tensor) -> Tensor:
    r"""Score data by what an ensemble says of them, less how much it disagrees; higher is more outlying.

    .. math:: -\left(\frac{1}{M} \sum_{m=1}^M \log p_m(x) - \operatorname{Var}_m \log p_m(x)\right)

    The variance has :math:`M - 1` in its denominator.

    Args:
        log_p: of each of :math:`M` fits of one model by different seeds, in nats, shape ``(M, data)``.

    Returns:
        Scores of shape ``(data,)``, in nats.

    Raises:
        DataError: where there are fewer than two fits, or some values are not finite.

    References:
        WAIC, but Why? Generative Ensembles for Robust Anomaly Detection (Choi et al., 2018),
        https://arxiv.org/abs/1810.01392

    Example:
        >>> watanabe_akaike(torch.tensor([[-3.0, -8.0], [-3.0, -4.0]]))
        tensor([ 3., 14.])
    """
    if log_p.dim() != 2 or len(log_p) < 2:
        raise DataError(
            f"expected log-densities of at least two fits, shape (fits, data), found shape {tuple(log_p.shape)}"
        )
    if not log_p.isfinite().all():
        raise DataError(f"{int((~log_p.isfinite()).any(0).sum())} of {log_p.shape[1]} data are impossible for some fit")
    return log_p.var(0) - log_p.mean(0)


def auroc(inliers: Tensor, outliers: Tensor) -> Estimate:
    r"""Estimate the probability that an outlier's score is above an inlier's: the area under the ROC curve.

    .. math:: \hat\theta = \frac{1}{m n} \sum_{i=1}^m \sum_{j=1}^n
        \left([s_i > t_j] + \tfrac{1}{2} [s_i = t_j]\right)

    for scores :math:`s` of outliers and :math:`t` of inliers. It is 1 where all outliers score above all inliers, one
    half where scores say nothing, and below one half where they say the opposite. The standard error is DeLong's,
    :math:`\sqrt{S_s / m + S_t / n}`, where :math:`S` are the variances of what each outlier and each inlier
    contributes; it is 0 where the two do not overlap.

    Args:
        inliers: their scores :math:`t`, shape ``(n,)``.
        outliers: their scores :math:`s`, shape ``(m,)``.

    Returns:
        The area; without an error where either has fewer than two scores.

    Raises:
        DataError: where there are none of either, or some are NaN.

    References:
        Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A Nonparametric
        Approach (DeLong, DeLong, Clarke-Pearson, 1988), https://doi.org/10.2307/2531595

    Example:
        >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])).value  # three of four pairs, and a tie
        0.875
    """
    t, s = (_checked(torch.as_tensor(x).flatten(), name) for x, name in ((inliers, "inliers"), (outliers, "outliers")))
    if not len(t) or not len(s):
        raise DataError(f"expected scores of both, found {len(t)} of inliers and {len(s)} of outliers")
    of_outliers, of_inliers = _share_below(s, t), 1 - _share_below(t, s)
    stderr = None
    if min(len(t), len(s)) > 1:
        stderr = float((of_outliers.var() / len(s) + of_inliers.var() / len(t)).sqrt())
    return Estimate(float(of_outliers.mean()), stderr, "probability")


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """Return which share of the others is below each value, ties counted a half."""
    order = others.sort().values
    below, not_above = torch.searchsorted(order, values), torch.searchsorted(order, values, right=True)
    return (below + not_above).double() / (2 * len(order))


def _checked(values: Tensor, name: str) -> Tensor:
    if values.isnan().any():
        count = int(values.isnan().sum())
        raise DataError(f"{count} of {values.numel()} values of {name} are NaN: look at the data and the fit")
    return values
