"""Learning principles, and the loop that applies them."""

from pyrogen.discrepancy import RBF, RationalQuadratic
from pyrogen.inference.aae import AAE, WAE
from pyrogen.inference.adversarial import Adversarial, Scoring
from pyrogen.inference.ali import ALI
from pyrogen.inference.alpha_gan import AlphaGAN
from pyrogen.inference.annealing import Annealing
from pyrogen.inference.autocast import Autocast
from pyrogen.inference.avb import AVB
from pyrogen.inference.collapsed_vb import CollapsedVB
from pyrogen.inference.compile import CompiledObjective, CompiledStep, compile
from pyrogen.inference.control import KLControl
from pyrogen.inference.cyclegan import CycleGAN
from pyrogen.inference.distance import Distance
from pyrogen.inference.divergence import ForwardKL, ReverseKL
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.fgan import FGAN
from pyrogen.inference.gan import GAN
from pyrogen.inference.history import History
from pyrogen.inference.maximum_likelihood import MaximumLikelihood
from pyrogen.inference.mmd import MMD, MMDGAN
from pyrogen.inference.mpo import MPO
from pyrogen.inference.natural_gradient import NaturalGradient
from pyrogen.inference.objective import Objective
from pyrogen.inference.optimal_transport import EnergyDistance, Sinkhorn, SlicedWasserstein
from pyrogen.inference.penalties import DRAGAN, R1, Drift, Interpolated, Penalty
from pyrogen.inference.ppo import PPO
from pyrogen.inference.pyro_elbo import PyroELBO
from pyrogen.inference.ratio import LogRatio, Ratio, Telescoping
from pyrogen.inference.renyi import IWAE, Renyi
from pyrogen.inference.returns import VTrace, discounted_returns, generalized_advantages, lambda_returns, v_trace
from pyrogen.inference.sac import SAC
from pyrogen.inference.smoothing import SmoothedTrajectories, particle_smoothing
from pyrogen.inference.soft_q import SoftQ
from pyrogen.inference.total_correlation import BetaTCVAE, FactorVAE
from pyrogen.inference.train import train
from pyrogen.inference.training import Step, Training
from pyrogen.inference.veegan import VEEGAN
from pyrogen.inference.virel import VIREL
from pyrogen.inference.wgan import WGAN
from pyrogen.inference.worth import can_compile, is_worth_compiling

__all__ = [
    "AAE",
    "ALI",
    "AVB",
    "DRAGAN",
    "ELBO",
    "FGAN",
    "GAN",
    "IWAE",
    "MMD",
    "MMDGAN",
    "MPO",
    "PPO",
    "R1",
    "RBF",
    "SAC",
    "VEEGAN",
    "VIREL",
    "WAE",
    "WGAN",
    "Adversarial",
    "AlphaGAN",
    "Annealing",
    "Autocast",
    "BetaTCVAE",
    "CollapsedVB",
    "CompiledObjective",
    "CompiledStep",
    "CycleGAN",
    "Distance",
    "Drift",
    "EnergyDistance",
    "FactorVAE",
    "ForwardKL",
    "History",
    "Interpolated",
    "KLControl",
    "LogRatio",
    "MaximumLikelihood",
    "NaturalGradient",
    "Objective",
    "Penalty",
    "PyroELBO",
    "Ratio",
    "RationalQuadratic",
    "Renyi",
    "ReverseKL",
    "Scoring",
    "Sinkhorn",
    "SlicedWasserstein",
    "SmoothedTrajectories",
    "SoftQ",
    "Step",
    "Telescoping",
    "Training",
    "VTrace",
    "can_compile",
    "compile",
    "discounted_returns",
    "generalized_advantages",
    "is_worth_compiling",
    "lambda_returns",
    "particle_smoothing",
    "train",
    "v_trace",
]
