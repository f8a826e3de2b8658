"""What the functions of PyTorch do to channels: one table, by the plain names of a recording."""

from agileact.transforms.trace.recording import words

REARRANGING = words(
    "view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis t T mT H mH adjoint squeeze "
    "unsqueeze expand expand_as view_as reshape_as contiguous clone detach alias chunk split split_with_sizes "
    "tensor_split unbind getitem narrow select index_select cat stack hstack vstack dstack roll flip fliplr flipud "
    "rot90 pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle repeat tile repeat_interleave "
    "atleast_1d atleast_2d atleast_3d broadcast_to diagonal rename ravel as_strided hsplit vsplit dsplit"
)
"""Each number of the result is a number of an argument: calling them on labels tells which."""

CONVERTING = words("to type float half double bfloat16 cpu cuda type_as requires_grad positive")
"""The same numbers in another dtype or place."""

PASSING = CONVERTING | words("contiguous clone detach alias")
"""The same numbers in the same order."""

JOINING = words("cat stack hstack vstack dstack")
"""Every tensor given is in the result."""

SHAPED_BY = words("expand_as view_as reshape_as type_as")
"""Only the first tensor is in the result; the second lends its shape or dtype."""

DROPPING = words("dropout dropout1d dropout2d dropout3d feature_dropout")
"""The same numbers in evaluation; in training each number times 0 or a constant."""

LINEAR = {
    "linear": -1,
    "conv1d": -2,
    "conv2d": -3,
    "conv3d": -4,
    "conv_transpose1d": -2,
    "conv_transpose2d": -3,
    "conv_transpose3d": -4,
    "addmm": -1,
}
"""Linear maps with a weight, and the axis of their result along which the output channels lie."""

NORMS = {"batch_norm": 1, "layer_norm": -1, "group_norm": 1, "instance_norm": 1, "rms_norm": -1}
"""Normalisations with a weight and a bias for each channel, and the axis of the channels."""

MAX_POOLING = words("max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax")
AVERAGE_POOLING = words(
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean"
)
UPSAMPLING = words("interpolate upsample upsample_nearest upsample_bilinear")
"""Each number of the result is a mean of numbers of the same channel."""
