"""What the report's pictures show."""

from dataclasses import replace

import pytest
import torch
from pyro import poutine

from pyrogen import pictures
from pyrogen.calibration_exhibits import calibration_exhibits
from pyrogen.calibration_pictures import check_histograms, rank_histograms
from pyrogen.data import digits, ring
from pyrogen.evaluation import Calibration, Estimate, PredictiveCheck
from pyrogen.exhibits import decode
from pyrogen.inference import ELBO, EnergyDistance, MaximumLikelihood
from pyrogen.models import classifier, generator, m2, vae
from pyrogen.recipe import Programs
from pyrogen.sites import Generating
from pyrogen.spec import DataSpec


def test_decoding_is_of_the_latents_that_were_given():
    """Interpolations and traversals: the mean of p(x | z) at each z, and not at draws of the prior."""
    model, _ = vae(DataSpec((1, 4, 4), "binary"), latent=2, hidden=(8,))
    z = torch.randn(3, 2)
    truth = model.decoder(z).sigmoid().reshape(3, 1, 4, 4)
    torch.testing.assert_close(decode(model, z), truth)

    within = Generating()(poutine.condition(model, data={"z": z}))  # the mutant
    drawn = pictures.expected(poutine.trace(within).get_trace(size=3).nodes["x"]["fn"])
    assert not torch.allclose(drawn, truth)


@pytest.mark.slow
def test_calibration_is_shown_of_what_there_is():
    """A classifier's forecasts; a guide's ranks and replicates; M2's all three; an implicit model's replicates."""
    data = digits(pixels="dynamic-binary", labels=50)
    settings = {"latent": 2, "hidden": (8,)}
    cases = [
        (classifier(digits().spec, hidden=(8,)), digits(), MaximumLikelihood(), ["label_reliability"]),
        (vae(digits().spec, **settings), digits(), ELBO(), ["ranks", "replicates"]),
        (m2(data.spec, **settings), data, ELBO(), ["label_reliability", "ranks", "replicates"]),
        (generator(ring().spec, hidden=(8,)), ring(), EnergyDistance(), ["replicates"]),
    ]
    for programs, dataset, objective, names in cases:
        found = calibration_exhibits(Programs(*programs), dataset, objective)
        assert [exhibit.name for exhibit in found] == names
        for exhibit in found:
            assert exhibit.drawing.light != exhibit.drawing.dark
    [exhibit] = calibration_exhibits(Programs(*cases[0][0]), digits(), MaximumLikelihood())
    assert "180 held-out forecasts" in exhibit.caption
    none = {"x": torch.zeros(0, 2), "y": torch.zeros(0).long()}
    unseen = replace(ring(), validation=none, test=none)
    assert calibration_exhibits(Programs(*cases[3][0]), unseen, EnergyDistance()) == []


def test_panels_are_of_the_worst_ranks_and_of_constant_statistics_too():
    """More ranks than panels, and replicates that all have the same, are no error."""
    ranks = {f"z[{i}]": torch.randint(100, (200,)) for i in range(9)}
    found = Calibration(ranks, {name: 1.0 - i / 10 for i, name in enumerate(ranks)}, 99)
    assert rank_histograms(found).width == 851
    check = PredictiveCheck(Estimate(0.5, 0.0, "share"), 1.0, torch.ones(20))
    assert check_histograms({"max": check}).light
