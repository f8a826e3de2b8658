"""The operators: what they are called, what they take, and what comes out."""

import torch

# The parameters of an operator lie along the axes dim to dim + ndim of x, flattened; ndim = 0 is one pair for all.
# With several terms, whose sum the result is, they lie term after term. p and q are the base function's options, in the
# order of FUSED. The defaults are the usual call: what Python does not pass it need not convert.
_PLACE = "Tensor? scale, Tensor? location, str base, float p=0, float q=0, int dim=1, int ndim=1, int terms=1"
# What was saved is x, or, with from_output, the result. Then "the gradient of saved" is still that of x.
_KEPT = f"Tensor saved, {_PLACE}, bool from_output=False"
_POOLED = (
    "Tensor? scale, Tensor? location, str base, float p, float q, "
    "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation"
)

SCHEMAS = {
    # scale * f(x - location)
    "agile": f"(Tensor x, {_PLACE}) -> Tensor",
    # the same, written over x
    "agile_": f"(Tensor(a!) x, {_PLACE}) -> Tensor(a!)",
    # scale * f(gain * (x - location)): kernels of its own on the CPU, else composed of the others
    "agile_gain": (
        "(Tensor x, Tensor scale, Tensor location, Tensor gain, str base, float p=0, float q=0, int dim=1, int ndim=1)"
        " -> Tensor"
    ),
    # the gradients of x, scale and location; an empty one for a parameter that is not there
    "agile_backward": f"(Tensor grad, {_KEPT}) -> (Tensor, Tensor, Tensor)",
    # the gradients of grad, x, scale and location, from those of agile_backward's results
    "agile_double_backward": (
        "(Tensor? tangent_x, Tensor? tangent_scale, Tensor? tangent_location, "
        f"Tensor grad, {_KEPT}) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
    # max pooling of the activation: values, the inputs they come from, and their places in their windows;
    # the parameters have one number a channel, or one for all
    "agile_max_pool2d": (f"(Tensor x, {_POOLED}, SymInt[2] output_size) -> (Tensor, Tensor, Tensor)"),
    # the gradients of x, scale and location
    "agile_max_pool2d_backward": (
        f"(Tensor grad, Tensor picked, Tensor places, {_POOLED}, SymInt[2] input_size) -> (Tensor, Tensor, Tensor)"
    ),
    # a convolution and the 2x2 max pooling of what it makes: values, and their places in their windows
    "conv_max_pool2d": "(Tensor x, Tensor weight, Tensor? bias, int[2] padding) -> (Tensor, Tensor)",
    # the gradients of x, weight and bias; an empty one for an x that wants none
    "conv_max_pool2d_backward": (
        "(Tensor grad, Tensor x, Tensor weight, Tensor places, int[2] padding, bool want_x) -> (Tensor, Tensor, Tensor)"
    ),
}

LIBRARY = torch.library.Library("agileact", "DEF")
for _name, _schema in SCHEMAS.items():
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
