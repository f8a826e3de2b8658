"""Agile activations as modules."""

from agileact.nn.agile import Agile as Agile
from agileact.nn.combined import CombinedAgile as CombinedAgile
from agileact.nn.module import AgileModule as AgileModule
from agileact.nn.named import AgileCELU as AgileCELU
from agileact.nn.named import AgileELU as AgileELU
from agileact.nn.named import AgileGELU as AgileGELU
from agileact.nn.named import AgileHardshrink as AgileHardshrink
from agileact.nn.named import AgileHardsigmoid as AgileHardsigmoid
from agileact.nn.named import AgileHardswish as AgileHardswish
from agileact.nn.named import AgileHardtanh as AgileHardtanh
from agileact.nn.named import AgileIdentity as AgileIdentity
from agileact.nn.named import AgileLeakyReLU as AgileLeakyReLU
from agileact.nn.named import AgileLogSigmoid as AgileLogSigmoid
from agileact.nn.named import AgileMish as AgileMish
from agileact.nn.named import AgileReLU as AgileReLU
from agileact.nn.named import AgileReLU6 as AgileReLU6
from agileact.nn.named import AgileSELU as AgileSELU
from agileact.nn.named import AgileSigmoid as AgileSigmoid
from agileact.nn.named import AgileSiLU as AgileSiLU
from agileact.nn.named import AgileSine as AgileSine
from agileact.nn.named import AgileSoftplus as AgileSoftplus
from agileact.nn.named import AgileSoftshrink as AgileSoftshrink
from agileact.nn.named import AgileSoftsign as AgileSoftsign
from agileact.nn.named import AgileTanh as AgileTanh
from agileact.nn.named import AgileTanhshrink as AgileTanhshrink
from agileact.nn.named import AgileThreshold as AgileThreshold
from agileact.nn.pooling import AgileMaxPool2d as AgileMaxPool2d
from agileact.nn.wrapped import AgileWrapped as AgileWrapped

__all__ = sorted(name for name in globals() if name[0].isupper())
