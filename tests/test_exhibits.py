"""What the report's pictures show."""

import torch
from pyro import poutine

from pyrogen import pictures
from pyrogen.exhibits import decode
from pyrogen.models import vae
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
