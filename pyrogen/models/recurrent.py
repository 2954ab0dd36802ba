"""Programs of long sequences that are read in windows, one after the other."""

import pyro
import torch
from torch import Tensor

from pyrogen.models.autoregressive import AutoregressiveModel
from pyrogen.models.likelihood import Likelihood
from pyrogen.nn.recurrent import Memory, Recurrent
from pyrogen.spec import DataSpec

__all__ = ["RecurrentModel"]


class RecurrentModel(AutoregressiveModel):
    r"""Sequences that are read in windows; what was read before is carried over from batch to batch.

    .. math:: p(x_{t + 1 : t + T} \mid x_{\le t}) = \prod_{i = t + 1}^{t + T} p(x_i \mid f_\theta(x_{<i}))

    Gradients end where the window begins: truncated back-propagation through time. Sites as in
    :class:`AutoregressiveModel`.

    What was read is in buffers, so that it is saved and loaded with the parameters. It is used and changed in training
    mode alone, and where ``begins`` is given alone; a batch of another size than the last begins anew.

    Args:
        network: :math:`f_\theta`, with a memory.
        likelihood: what its features mean, of one element.
        spec: the data: windows, of shape ``(time,)``.

    References:
        An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories (Williams and
        Peng, 1990), https://doi.org/10.1162/neco.1990.2.4.490

    Example:
        >>> from pyrogen.models import likelihood_of_element
        >>> from pyrogen.nn import CharRNN, OneHotValues
        >>> spec = DataSpec((3,), "levels", levels=5)
        >>> network = CharRNN(OneHotValues(5), 5, hidden=4, layers=1)
        >>> model = RecurrentModel(network, likelihood_of_element(spec, "categorical"), spec)
        >>> _ = model(torch.tensor([[1.0, 2.0, 4.0]]), begins=torch.tensor([True]))
        >>> model.previous
        tensor([4.])
    """

    network: Recurrent
    previous: Tensor
    hidden: Tensor

    def __init__(self, network: Recurrent, likelihood: Likelihood, spec: DataSpec) -> None:
        super().__init__(network, likelihood, spec)
        for name, empty in network.begin(0)._asdict().items():
            self.register_buffer(name, empty.detach())

    def forward(
        self, x: Tensor | None = None, size: int = 1, length: int | None = None, begins: Tensor | None = None
    ) -> Tensor:
        """Score windows; without data, generate ``size`` of them.

        Args:
            x: windows of shape ``(batch, time)``.
            size: how many, without data.
            length: of those, where it is not that of ``spec``.
            begins: where a sequence begins, bool of shape ``(batch,)``; the other rows go on from the same row of the
                last batch. If not given, or outside of training, all begin, and what was read is neither used nor
                changed.
        """
        size = size if x is None else len(x)
        memory = self.memory(begins) if self.training and begins is not None else None
        distribution = self.distribution(size, memory=memory, length=self._length(x, length))
        if memory is not None and x is not None:
            self._keep(distribution.after(x))
        with pyro.plate("data", size):
            return pyro.sample("x", distribution, obs=x)

    def memory(self, begins: Tensor) -> Memory:
        """Return what was read before each row of a batch."""
        memory = Memory(self.previous, self.hidden)
        if len(begins) != len(memory.previous):
            memory = Memory(*(x.detach() for x in self.network.begin(len(begins))))
            self.previous, self.hidden = memory
        return memory.forgetting(begins)

    def _keep(self, memory: Memory) -> None:
        with torch.no_grad():
            self.previous.copy_(memory.previous)
            self.hidden.copy_(memory.hidden)
