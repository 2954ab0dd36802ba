"""Networks, without Pyro."""

from pyrogen.nn.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from pyrogen.nn.dcgan import DCGANCritic, DCGANGenerator
from pyrogen.nn.flow import LazyDistribution, spline_flow
from pyrogen.nn.mlp import MLP

__all__ = [
    "MLP",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "DCGANCritic",
    "DCGANGenerator",
    "LazyDistribution",
    "spline_flow",
]
