"""Agile activations as modules."""

from agileact.nn._agile import Agile as Agile
from agileact.nn._combined import CombinedAgile as CombinedAgile
from agileact.nn._exponential import AgileCELU as AgileCELU
from agileact.nn._exponential import AgileELU as AgileELU
from agileact.nn._exponential import AgileSELU as AgileSELU
from agileact.nn._exponential import AgileSoftplus as AgileSoftplus
from agileact.nn._hard import AgileHardshrink as AgileHardshrink
from agileact.nn._hard import AgileHardsigmoid as AgileHardsigmoid
from agileact.nn._hard import AgileHardswish as AgileHardswish
from agileact.nn._hard import AgileHardtanh as AgileHardtanh
from agileact.nn._hard import AgileSoftshrink as AgileSoftshrink
from agileact.nn._module import AgileModule as AgileModule
from agileact.nn._pool import AgileMaxPool2d as AgileMaxPool2d
from agileact.nn._rectifiers import AgileIdentity as AgileIdentity
from agileact.nn._rectifiers import AgileLeakyReLU as AgileLeakyReLU
from agileact.nn._rectifiers import AgileReLU as AgileReLU
from agileact.nn._rectifiers import AgileReLU6 as AgileReLU6
from agileact.nn._rectifiers import AgileThreshold as AgileThreshold
from agileact.nn._smooth import AgileGELU as AgileGELU
from agileact.nn._smooth import AgileLogSigmoid as AgileLogSigmoid
from agileact.nn._smooth import AgileMish as AgileMish
from agileact.nn._smooth import AgileSigmoid as AgileSigmoid
from agileact.nn._smooth import AgileSiLU as AgileSiLU
from agileact.nn._smooth import AgileSine as AgileSine
from agileact.nn._smooth import AgileSoftsign as AgileSoftsign
from agileact.nn._smooth import AgileTanh as AgileTanh
from agileact.nn._smooth import AgileTanhshrink as AgileTanhshrink
from agileact.nn._wrapped import AgileWrapped as AgileWrapped

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
