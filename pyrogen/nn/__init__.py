"""Networks, without Pyro."""

from pyrogen.nn.bag_of_words import BagOfWordsMLP
from pyrogen.nn.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from pyrogen.nn.dcgan import DCGANCritic, DCGANGenerator
from pyrogen.nn.flow import LazyDistribution, spline_flow
from pyrogen.nn.mlp import MLP, check_widths
from pyrogen.nn.progressive import Growth, ProgressiveCritic, ProgressiveGenerator
from pyrogen.nn.translation import PatchCritic, ResNetTranslator

__all__ = [
    "MLP",
    "BagOfWordsMLP",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "DCGANCritic",
    "DCGANGenerator",
    "Growth",
    "LazyDistribution",
    "PatchCritic",
    "ProgressiveCritic",
    "ProgressiveGenerator",
    "ResNetTranslator",
    "check_widths",
    "spline_flow",
]
