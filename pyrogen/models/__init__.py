"""Families of generative models, as Pyro programs."""

from pyrogen.models.auto_implicit import AutoImplicit
from pyrogen.models.autoregressive import AutoregressiveModel, ConditionalAutoregressiveModel, likelihood_of_element
from pyrogen.models.cem import CEM
from pyrogen.models.classifier import Classifier, classifier
from pyrogen.models.coordinate_ascent import local_optimum
from pyrogen.models.dense_entries import fvsbn, made, nade
from pyrogen.models.dirichlet_process_mixture import (
    DirichletProcessMixture,
    StickBreakingPosterior,
    dirichlet_process_mixture,
)
from pyrogen.models.encoder import DeterministicEncoder, Encoder, GaussianEncoder, ImplicitEncoder, StudentTEncoder
from pyrogen.models.experts import ProductOfExperts
from pyrogen.models.gaussian_mixture import GaussianMixture, gaussian_mixture
from pyrogen.models.generator import ConditionalGenerator, Generator, dcgan, generator, progressive_gan
from pyrogen.models.image_entries import gated_pixelcnn, pixel_rnn, pixelcnn, pixelcnn_pp
from pyrogen.models.incomplete import Imputed, Incomplete, miwae
from pyrogen.models.joint_vae import JointVAE, joint_vae, to_images, to_labels
from pyrogen.models.likelihood import LIKELIHOODS, Likelihood
from pyrogen.models.mppi import MPPI
from pyrogen.models.planner import Planner
from pyrogen.models.policy import (
    CategoricalPolicy,
    OptimalTrajectories,
    Policy,
    SoftQPolicy,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    trajectory_plates,
)
from pyrogen.models.policy_entries import policy
from pyrogen.models.ppca import PPCA, ppca
from pyrogen.models.recurrent import RecurrentModel
from pyrogen.models.semi_supervised import M2, m2
from pyrogen.models.sound_entries import wavenet
from pyrogen.models.state_dependent_exploration import StateDependentExploration
from pyrogen.models.text_entries import char_rnn, transformer
from pyrogen.models.topic_entries import correlated_topics, lda, prodlda
from pyrogen.models.topic_guides import DirichletEncoder, LogisticNormalEncoder, MeanField, NormalEncoder, PointTopics
from pyrogen.models.topic_model import LDA, CorrelatedTopicModel, ProdLDA, TopicModel
from pyrogen.models.translator import Translator, cyclegan
from pyrogen.models.vae import VAE, vae

__all__ = [
    "CEM",
    "LDA",
    "LIKELIHOODS",
    "M2",
    "MPPI",
    "PPCA",
    "VAE",
    "AutoImplicit",
    "AutoregressiveModel",
    "CategoricalPolicy",
    "Classifier",
    "ConditionalAutoregressiveModel",
    "ConditionalGenerator",
    "CorrelatedTopicModel",
    "DeterministicEncoder",
    "DirichletEncoder",
    "DirichletProcessMixture",
    "Encoder",
    "GaussianEncoder",
    "GaussianMixture",
    "Generator",
    "ImplicitEncoder",
    "Imputed",
    "Incomplete",
    "JointVAE",
    "Likelihood",
    "LogisticNormalEncoder",
    "MeanField",
    "NormalEncoder",
    "OptimalTrajectories",
    "Planner",
    "PointTopics",
    "Policy",
    "ProdLDA",
    "ProductOfExperts",
    "RecurrentModel",
    "SoftQPolicy",
    "StateDependentExploration",
    "StickBreakingPosterior",
    "StudentTEncoder",
    "TanhNormalPolicy",
    "TopicModel",
    "Translator",
    "UniformBox",
    "UniformChoice",
    "char_rnn",
    "classifier",
    "correlated_topics",
    "cyclegan",
    "dcgan",
    "dirichlet_process_mixture",
    "fvsbn",
    "gated_pixelcnn",
    "gaussian_mixture",
    "generator",
    "joint_vae",
    "lda",
    "likelihood_of_element",
    "local_optimum",
    "m2",
    "made",
    "miwae",
    "nade",
    "pixel_rnn",
    "pixelcnn",
    "pixelcnn_pp",
    "policy",
    "ppca",
    "prodlda",
    "progressive_gan",
    "to_images",
    "to_labels",
    "trajectory_plates",
    "transformer",
    "vae",
    "wavenet",
]
