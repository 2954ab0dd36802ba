"""Networks, without Pyro."""

from pyrogen.nn.action_values import ActionValues
from pyrogen.nn.bag_of_words import BagOfWordsMLP
from pyrogen.nn.causal import Causal
from pyrogen.nn.char_rnn import CharRNN
from pyrogen.nn.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from pyrogen.nn.dcgan import DCGANCritic, DCGANGenerator
from pyrogen.nn.flow import LazyDistribution, spline_flow
from pyrogen.nn.gated_pixelcnn import GatedPixelCNN
from pyrogen.nn.made import FVSBN, MADE, NADE
from pyrogen.nn.mlp import MLP, check_widths
from pyrogen.nn.pixelcnn import PixelCNN
from pyrogen.nn.pixelcnnpp import PixelCNNPlusPlus
from pyrogen.nn.pixelrnn import DiagonalBiLSTM, RowLSTM
from pyrogen.nn.progressive import Growth, ProgressiveCritic, ProgressiveGenerator
from pyrogen.nn.recurrent import Memory, Recurrent
from pyrogen.nn.state_values import StateValues
from pyrogen.nn.transformer import CausalTransformer
from pyrogen.nn.translation import PatchCritic, ResNetTranslator
from pyrogen.nn.values import EmbeddedValues, OneHotValues, ScaledValues
from pyrogen.nn.wavenet import WaveNet

__all__ = [
    "FVSBN",
    "MADE",
    "MLP",
    "NADE",
    "ActionValues",
    "BagOfWordsMLP",
    "Causal",
    "CausalTransformer",
    "CharRNN",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "DCGANCritic",
    "DCGANGenerator",
    "DiagonalBiLSTM",
    "EmbeddedValues",
    "GatedPixelCNN",
    "Growth",
    "LazyDistribution",
    "Memory",
    "OneHotValues",
    "PatchCritic",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "ProgressiveCritic",
    "ProgressiveGenerator",
    "Recurrent",
    "ResNetTranslator",
    "RowLSTM",
    "ScaledValues",
    "StateValues",
    "WaveNet",
    "check_widths",
    "spline_flow",
]
