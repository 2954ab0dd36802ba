"""Networks, without Pyro."""

from pyrogen.nn.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from pyrogen.nn.mlp import MLP

__all__ = ["MLP", "ConvolutionalDecoder", "ConvolutionalEncoder"]
