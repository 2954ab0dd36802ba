"""Learning principles, and the loop that applies them."""

from pyrogen.inference.annealing import Annealing
from pyrogen.inference.divergence import ForwardKL, ReverseKL
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.maximum_likelihood import MaximumLikelihood
from pyrogen.inference.objective import Objective
from pyrogen.inference.pyro_elbo import PyroELBO
from pyrogen.inference.renyi import IWAE, Renyi
from pyrogen.inference.train import train
from pyrogen.inference.training import Step, Training

__all__ = [
    "ELBO",
    "IWAE",
    "Annealing",
    "ForwardKL",
    "MaximumLikelihood",
    "Objective",
    "PyroELBO",
    "Renyi",
    "ReverseKL",
    "Step",
    "Training",
    "train",
]
