"""What is read off a guide's draws, against guides whose moments are known."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import active_units, encode, knn_probe, linear_probe


def guide(x):
    """Three latents at one site: the datum, noise around 5, and a hundredth of the datum; and a fourth at another."""
    shared = pyro.sample("shared", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        loc = torch.stack([x, torch.full_like(x, 5.0), 0.01 * x], -1) + 0 * shared.unsqueeze(-1)
        pyro.sample("z", dist.Normal(loc, torch.tensor([0.5, 1.0, 1.0])).to_event(1))
        pyro.sample("w", dist.Normal(2 * x, 0.1))


def guide_of_groups(x):
    """Two latents for each datum, in a plate outside of the data's."""
    with pyro.plate("group", 2, dim=-2), pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.stack([x, -3 * x]), 0.1))


def test_data_are_rows_wherever_their_plate_is():
    pyro.set_rng_seed(0)
    x = torch.linspace(-2, 2, 30)
    codes = encode(guide_of_groups, [{"x": x}], num_draws=500)
    wanted = torch.stack([x, -3 * x], 1).double()
    torch.testing.assert_close(codes.mean, wanted, atol=5 * 0.1 / 500**0.5, rtol=0)


def batches():
    x = torch.linspace(-2, 2, 400)
    return [{"x": part} for part in x.split(150)], x


def test_moments_of_draws():
    pyro.set_rng_seed(0)
    parts, x = batches()
    codes = encode(guide, parts, num_draws=2000)
    assert codes.mean.shape == codes.variance.shape == (400, 4)
    torch.testing.assert_close(codes.mean[:, 0], x.double(), atol=4 * 0.5 / 2000**0.5, rtol=0)
    torch.testing.assert_close(codes.mean[:, 3], 2 * x.double(), atol=4 * 0.1 / 2000**0.5, rtol=0)
    torch.testing.assert_close(codes.variance.mean(0), torch.tensor([0.25, 1.0, 1.0, 0.01]).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("num_draws", [2, 8, 60])
def test_noise_is_not_active_however_few_the_draws(num_draws):
    """Means of two draws vary by a half on their own, fifty times what counts as active."""
    for seed in range(5):
        pyro.set_rng_seed(seed)
        x = torch.linspace(-2, 2, 400).repeat(50)
        assert active_units(encode(guide, [{"x": x}], num_draws)) == pytest.approx(2, abs=1 if num_draws == 2 else 0)


def test_probes():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(200)
    centres = torch.tensor([[0.0, 3.0], [3.0, 0.0], [-3.0, -3.0]])
    codes = centres[labels] + 0.3 * torch.randn(600, 2, generator=generator)
    for probe in (linear_probe, knn_probe):
        told = probe(codes[:400], labels[:400], codes[400:], labels[400:])
        assert told.value > 0.99
        noise = torch.randn(600, 2, generator=generator)
        guessed = probe(noise[:400], labels[:400], noise[400:], labels[400:])
        assert guessed.value == pytest.approx(1 / 3, abs=4 * guessed.stderr)
    # Rings around one another are near to their own, and no line is between them.
    angle = 6.28 * torch.rand(600, generator=generator)
    rings = (labels + 1)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    assert knn_probe(rings[:400], labels[:400], rings[400:], labels[400:]).value > 0.99
    assert linear_probe(rings[:400], labels[:400], rings[400:], labels[400:]).value < 0.6


def test_what_is_no_representation_is_refused():
    def shared(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match="no latent datum by datum"):
        encode(shared, batches()[0])
    with pytest.raises(UsageError, match="two draws"):
        encode(guide, batches()[0], num_draws=1)
    with pytest.raises(DataError, match="one class alone"):
        linear_probe(torch.zeros(4, 2), torch.zeros(4), torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(DataError, match="have a label each"):
        knn_probe(torch.zeros(4, 2), torch.arange(3), torch.zeros(4, 2), torch.zeros(4))
