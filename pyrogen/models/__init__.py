"""Families of generative models, as Pyro programs."""

from pyrogen.models.classifier import Classifier, classifier
from pyrogen.models.gaussian_mixture import GaussianMixture, gaussian_mixture
from pyrogen.models.generator import ConditionalGenerator, Generator, dcgan, generator, progressive_gan
from pyrogen.models.likelihood import LIKELIHOODS, Likelihood
from pyrogen.models.ppca import PPCA, ppca
from pyrogen.models.translator import Translator, cyclegan
from pyrogen.models.vae import VAE, GaussianEncoder, vae

__all__ = [
    "LIKELIHOODS",
    "PPCA",
    "VAE",
    "Classifier",
    "ConditionalGenerator",
    "GaussianEncoder",
    "GaussianMixture",
    "Generator",
    "Likelihood",
    "Translator",
    "classifier",
    "cyclegan",
    "dcgan",
    "gaussian_mixture",
    "generator",
    "ppca",
    "progressive_gan",
    "vae",
]
