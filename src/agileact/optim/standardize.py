"""Rows of weights that stay directions while a model is trained."""

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact.nn.rows import Projection, directions, refusal


def standardize_weights(optimizer: Optimizer, model: nn.Module) -> RemovableHandle:
    r"""Keep each row of weights before an agile activation a direction: length 1, some of mean 0, after every step.

    Which layers these are, and which have mean 0, :func:`agileact.standardize` has noted on them. Of such a unit
    :math:`a f(g (w \cdot x - b))` the direction w, the size a and the position b (and the gain g, where f is not
    positively homogeneous) say different things; beside free weights a and b only repeat what these can do. A row is
    all that a unit weighs its input by: ``weight[i]`` of a linear or convolutional layer, grouped and depthwise ones
    too, and all numbers that make an output channel of a transposed convolution.

    Each step is taken as usual and then projected, :math:`w \leftarrow w / \lVert w \rVert`, or
    :math:`w \leftarrow (w - \bar w) / \lVert w - \bar w \rVert` where a layer is centred, in place and without new
    memory: the way of forced weight normalisation (Karras et al. 2024) with the centring of centred weight
    normalisation (Huang et al. 2017) and weight standardisation (Qiao et al. 2019). Nothing depends on the batch. The
    gradient, the optimizer's state and schedulers are what they were.

    Nothing is kept in the optimizer's state: after a state is loaded into a new optimizer, call this again; rows that
    are directions already keep every bit. A step that a GradScaler skips changes nothing. It composes with
    :func:`~agileact.constrain_scale` and :func:`~agileact.decay_activations` in any order, with DDP, and with FSDP
    (``fully_shard``), which shares weights out by rows. An average of weights (EMA, SWA) has shorter rows than 1, and
    computes with them as it is.

    Args:
        optimizer: Any optimizer that has the weights.
        model: The model, after :func:`agileact.standardize`.

    Returns:
        A handle; its ``remove()`` ends the projection.

    Raises:
        ArgumentError: If the optimizer has no weight of a layer that was standardised, or a weight has been
            parametrised or pruned since.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x = torch.randn(16, 4)
        >>> model, _ = ag.convert(model, example_inputs=x, weights="standardized")
        >>> optimizer = torch.optim.AdamW(ag.param_groups(model, lr=0.1, weight_decay=0.05))
        >>> handle = ag.standardize_weights(optimizer, model)
        >>> model(x).square().mean().backward()
        >>> optimizer.step()
        >>> torch.allclose(model[0].weight.norm(dim=1), torch.ones(8)), bool(model[2].weight.mean(1).abs().max() < 1e-6)
        (True, True)
    """
    checks.optimizer(optimizer)
    checks.model(model)
    owned = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    chosen = {}
    for name, layer in directions(model).items():
        why = refusal(layer)
        if why:
            raise ArgumentError(f"layer {name!r} cannot be kept standardised: {why}")
        if layer.weight in owned:
            chosen[name] = layer
    if not chosen:
        raise ArgumentError(
            "optimizer has no weight of a layer that agileact.standardize has standardised; is model the one whose "
            "parameters the optimizer has?"
        )
    projection = Projection(chosen)
    projection.project_strays()
    return optimizer.register_step_post_hook(lambda *_: projection.project())
