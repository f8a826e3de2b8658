"""Agile activations as modules."""

from agileact.nn.agile import Agile as Agile
from agileact.nn.combined import CombinedAgile as CombinedAgile
from agileact.nn.exponential import AgileCELU as AgileCELU
from agileact.nn.exponential import AgileELU as AgileELU
from agileact.nn.exponential import AgileSELU as AgileSELU
from agileact.nn.exponential import AgileSoftplus as AgileSoftplus
from agileact.nn.hard import AgileHardshrink as AgileHardshrink
from agileact.nn.hard import AgileHardsigmoid as AgileHardsigmoid
from agileact.nn.hard import AgileHardswish as AgileHardswish
from agileact.nn.hard import AgileHardtanh as AgileHardtanh
from agileact.nn.hard import AgileSoftshrink as AgileSoftshrink
from agileact.nn.module import AgileModule as AgileModule
from agileact.nn.pooling import AgileMaxPool2d as AgileMaxPool2d
from agileact.nn.rectifiers import AgileIdentity as AgileIdentity
from agileact.nn.rectifiers import AgileLeakyReLU as AgileLeakyReLU
from agileact.nn.rectifiers import AgileReLU as AgileReLU
from agileact.nn.rectifiers import AgileReLU6 as AgileReLU6
from agileact.nn.rectifiers import AgileThreshold as AgileThreshold
from agileact.nn.smooth import AgileGELU as AgileGELU
from agileact.nn.smooth import AgileLogSigmoid as AgileLogSigmoid
from agileact.nn.smooth import AgileMish as AgileMish
from agileact.nn.smooth import AgileSigmoid as AgileSigmoid
from agileact.nn.smooth import AgileSiLU as AgileSiLU
from agileact.nn.smooth import AgileSine as AgileSine
from agileact.nn.smooth import AgileSoftsign as AgileSoftsign
from agileact.nn.smooth import AgileTanh as AgileTanh
from agileact.nn.smooth import AgileTanhshrink as AgileTanhshrink
from agileact.nn.wrapped import AgileWrapped as AgileWrapped

__all__ = [
    "Agile",
    "AgileCELU",
    "AgileELU",
    "AgileGELU",
    "AgileHardshrink",
    "AgileHardsigmoid",
    "AgileHardswish",
    "AgileHardtanh",
    "AgileIdentity",
    "AgileLeakyReLU",
    "AgileLogSigmoid",
    "AgileMaxPool2d",
    "AgileMish",
    "AgileModule",
    "AgileReLU",
    "AgileReLU6",
    "AgileSELU",
    "AgileSiLU",
    "AgileSigmoid",
    "AgileSine",
    "AgileSoftplus",
    "AgileSoftshrink",
    "AgileSoftsign",
    "AgileTanh",
    "AgileTanhshrink",
    "AgileThreshold",
    "AgileWrapped",
    "CombinedAgile",
]
