"""Families of generative models, as Pyro programs."""

from pyrogen.models.auto_implicit import AutoImplicit
from pyrogen.models.classifier import Classifier, classifier
from pyrogen.models.encoder import DeterministicEncoder, Encoder, GaussianEncoder, ImplicitEncoder
from pyrogen.models.experts import ProductOfExperts
from pyrogen.models.gaussian_mixture import GaussianMixture, gaussian_mixture
from pyrogen.models.generator import ConditionalGenerator, Generator, dcgan, generator, progressive_gan
from pyrogen.models.joint_vae import JointVAE, joint_vae, to_images, to_labels
from pyrogen.models.likelihood import LIKELIHOODS, Likelihood
from pyrogen.models.ppca import PPCA, ppca
from pyrogen.models.translator import Translator, cyclegan
from pyrogen.models.vae import VAE, vae

__all__ = [
    "LIKELIHOODS",
    "PPCA",
    "VAE",
    "AutoImplicit",
    "Classifier",
    "ConditionalGenerator",
    "DeterministicEncoder",
    "Encoder",
    "GaussianEncoder",
    "GaussianMixture",
    "Generator",
    "ImplicitEncoder",
    "JointVAE",
    "Likelihood",
    "ProductOfExperts",
    "Translator",
    "classifier",
    "cyclegan",
    "dcgan",
    "gaussian_mixture",
    "generator",
    "joint_vae",
    "ppca",
    "progressive_gan",
    "to_images",
    "to_labels",
    "vae",
]
