"""Held to the truth: copies are found, draws of the data's distribution are not, and rank sums are SciPy's."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, mannwhitneyu

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import data_copying, nearest_neighbours


def test_neighbours_by_hand():
    torch.manual_seed(0)
    x, y = torch.randn(30, 2, 2), torch.randn(11, 2, 2)
    found = nearest_neighbours(x, y, 3)
    for row, draw in enumerate(y.double()):
        ordered = sorted((float((draw - datum).norm()), i) for i, datum in enumerate(x.double()))[:3]
        assert found.indices[row].tolist() == [i for _, i in ordered]
        assert found.distance[row].tolist() == pytest.approx([distance for distance, _ in ordered])


def test_a_copy_has_no_distance():
    """Products of large numbers would lose it."""
    x = 1e4 + torch.randn(2000, 20, dtype=torch.float64)
    found = nearest_neighbours(x, x)
    assert found.indices[:, 0].tolist() == list(range(2000))
    assert float(found.distance.max()) == 0.0
    far = 1e8 + torch.randn(30, 2, dtype=torch.float64)
    ordered = sorted(range(30), key=lambda i: float((far[i] - far[4]).norm()))
    assert nearest_neighbours(far, far[4:6], 30).indices[0].tolist() == ordered
    for count in (0, 2001):
        with pytest.raises(UsageError, match="between 1 and 2000"):
            nearest_neighbours(x, x, count)


def test_rank_sums_are_scipys():
    """With ties: half of the draws are copies, and some held-out data, too."""
    torch.manual_seed(0)
    training, new = torch.randn(2, 90, 2)
    draws = torch.cat([training[:40], torch.randn(30, 2)])
    held_out = torch.cat([new[:50], training[-15:]])
    a, b = (nearest_neighbours(training, values).distance[:, 0].numpy() for values in (draws, held_out))
    expected = mannwhitneyu(a, b, use_continuity=False, alternative="less", method="asymptotic")
    found = data_copying(training, draws, held_out)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.nearer.value == pytest.approx(1 - expected.statistic / (len(a) * len(b)), rel=1e-9)
    assert found.by_cell.tolist() == pytest.approx([found.statistic])


@pytest.mark.parametrize("cells", [1, 4])
def test_draws_of_the_distribution_are_no_copies(cells):
    """P-values are uniform, and the probability to be nearer is one half, within an honest standard error."""
    torch.manual_seed(0)
    runs = [data_copying(*torch.randn(500, 3).split([200, 60, 240]), cells=cells, least=10) for _ in range(120)]
    assert kstest([run.p_value for run in runs], "uniform").pvalue > 0.001
    nearer, said = (np.array([getattr(run.nearer, name) for run in runs]) for name in ("value", "stderr"))
    assert abs(nearer.mean() - 0.5) < 4.5 * nearer.std() / 120**0.5
    assert said.mean() == pytest.approx(nearer.std(), rel=0.2)


def test_copies_and_misfits():
    """Jittered copies are nearer, draws that are twice as wide are farther."""
    torch.manual_seed(0)
    training, new = torch.randn(2, 500, 5)
    copies = training + 0.1 * torch.randn(500, 5)
    found = data_copying(training, copies, new)
    assert found.statistic < -10
    assert found.p_value < 1e-12
    assert found.nearer.value > 0.95
    far = data_copying(training, 2 * torch.randn(500, 5), new)
    assert far.statistic > 10
    assert far.p_value == pytest.approx(1.0)


def two_scales(size, wide):
    """Draw a share in a wide cloud, and the rest in a narrow one."""
    scale = torch.where(torch.rand(size, 1) < wide, 10.0, 0.1)
    return scale * torch.randn(size, 2) + 200 * (scale > 1)


def test_cells_see_copies_in_a_model_of_other_shares():
    """Half-way copies, but most in the wide cloud, where all distances are large."""
    torch.manual_seed(0)
    training, new = two_scales(1000, 0.5), two_scales(1000, 0.5)
    is_wide = training[:, 0] > 100
    copied = torch.cat([training[is_wide][:400], training[~is_wide][:20]])
    draws = copied + torch.where(copied[:, :1] > 100, 0.25, 0.0025) * torch.randn(420, 2)
    by_cells, whole = (data_copying(training, draws, new, cells=cells) for cells in (2, 1))
    assert whole.p_value > 0.5
    assert by_cells.p_value < 1e-6
    assert (by_cells.by_cell < -3).all()


def test_cells_weigh_as_held_out_data():
    """C_T is the mean of the cells' statistics by held-out shares; a cell without draws has none."""
    torch.manual_seed(0)
    training = torch.cat([torch.randn(300, 1), 100 + torch.randn(300, 1), 200 + torch.randn(300, 1)])
    draws = torch.cat([torch.randn(300, 1), 100.1 + torch.randn(50, 1)])
    new = torch.cat([torch.randn(100, 1), 100 + torch.randn(200, 1), 200 + torch.randn(50, 1)])
    found = data_copying(training, draws, new, cells=3)
    is_empty = found.by_cell.isnan()
    assert int(is_empty.sum()) == 1
    alone = [
        data_copying(training[i : i + 300], draws[j], new[k]).statistic
        for i, j, k in ((0, slice(300), slice(100)), (300, slice(300, 350), slice(100, 300)))
    ]
    assert sorted(found.by_cell[~is_empty].tolist()) == pytest.approx(sorted(alone))
    assert found.statistic == pytest.approx(alone[0] / 3 + 2 * alone[1] / 3)


def test_cells_that_cannot_be():
    x = torch.randn(30, 2)
    for cells in (0, 31):
        with pytest.raises(UsageError, match="between 1 and 30"):
            data_copying(x, x, x, cells=cells)
    with pytest.raises(DataError, match="no cell has 40 draws"):
        data_copying(x, x, x, least=40)
    constant = torch.zeros(30, 2)
    assert data_copying(constant, constant, constant).statistic == 0.0
