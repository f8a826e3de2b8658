"""Networks by name, built so that the same seed gives the same initial weights for every activation."""

from agileact.study.models.architectures import char_transformer as char_transformer
from agileact.study.models.architectures import deep_thin as deep_thin
from agileact.study.models.architectures import fully_connected as fully_connected
from agileact.study.models.architectures import paper_cnn as paper_cnn
from agileact.study.models.architectures import resnet as resnet
from agileact.study.models.fingerprint import arm_fingerprint as arm_fingerprint
from agileact.study.models.registry import build as build
from agileact.study.models.registry import initialise as initialise
from agileact.study.models.registry import initialise_all as initialise_all
from agileact.study.models.registry import names as names
from agileact.study.models.registry import options as options
from agileact.study.models.registry import positive as positive
from agileact.study.models.registry import register_model as register_model
from agileact.study.models.registry import role_activation as role_activation
from agileact.study.models.registry import subseed as subseed
from agileact.study.models.residual_plain import residual_plain as residual_plain
from agileact.study.models.user_network import custom as custom
from agileact.study.models.user_network import model_fingerprint as model_fingerprint
