"""Learning principles, and the loop that applies them."""

from pyrogen.inference.annealing import Annealing
from pyrogen.inference.autocast import Autocast
from pyrogen.inference.compile import CompiledObjective, CompiledStep, compile
from pyrogen.inference.divergence import ForwardKL, ReverseKL
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.maximum_likelihood import MaximumLikelihood
from pyrogen.inference.objective import Objective
from pyrogen.inference.pyro_elbo import PyroELBO
from pyrogen.inference.renyi import IWAE, Renyi
from pyrogen.inference.train import train
from pyrogen.inference.training import Step, Training
from pyrogen.inference.worth import is_worth_compiling

__all__ = [
    "ELBO",
    "IWAE",
    "Annealing",
    "Autocast",
    "CompiledObjective",
    "CompiledStep",
    "ForwardKL",
    "MaximumLikelihood",
    "Objective",
    "PyroELBO",
    "Renyi",
    "ReverseKL",
    "Step",
    "Training",
    "compile",
    "is_worth_compiling",
    "train",
]
