"""Real architectures with random weights from their own packages, each with an example of its input."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

Example = Tensor | tuple[Any, ...] | dict[str, Any]

# One network a family; the package's own list of models imports torchvision, its modules do not.
PYTORCHCV = (
    "alexnet.alexnet",
    "bagnet.bagnet9",
    "bninception.bninception",
    "cbamresnet.cbam_resnet18",
    "condensenet.condensenet74_c4_g4",
    "darknet.darknet_tiny",
    "darknet53.darknet53",
    "densenet.densenet121",
    "diracnetv2.diracnet18v2",
    "dla.dla34",
    "dpn.dpn68",
    "drn.drnc26",
    "efficientnet.efficientnet_b0",
    "fractalnet_cifar.fractalnet_cifar10",
    "ghostnet.ghostnet",
    "hardnet.hardnet39ds",
    "hrnet.hrnet_w18_small_v1",
    "ibnresnet.ibn_resnet50",
    "igcv3.igcv3_wd4",
    "inceptionv3.inceptionv3",
    "menet.menet108_8x1_g3",
    "mnasnet.mnasnet_b1",
    "mobilenet.mobilenet_wd4",
    "mobilenetv2.mobilenetv2_wd4",
    "mobilenetv3.mobilenetv3_small_wd2",
    "nin_cifar.nin_cifar10",
    "peleenet.peleenet",
    "preresnet.preresnet18",
    "proxylessnas.proxylessnas_cpu",
    "pyramidnet_cifar.pyramidnet110_a48_cifar10",
    "regnet.regnetx002",
    "resnet.resnet18",
    "resnet.resnet101",
    "resnext.resnext26_32x4d",
    "sepreresnet.sepreresnet18",
    "seresnet.seresnet18",
    "shufflenet.shufflenet_g1_wd4",
    "shufflenetv2.shufflenetv2_wd2",
    "spnasnet.spnasnet",
    "squeezenet.squeezenet_v1_1",
    "squeezenext.sqnxt23_w1",
    "vgg.vgg11",
    "vovnet.vovnet27s",
    "wrn_cifar.wrn16_10_cifar10",
    "xception.xception",
)


Made = tuple[nn.Module, Example]


@dataclass(frozen=True)
class Architecture:
    """A network of some package.

    Attributes:
        package: The package it is from, as pip calls it.
        name: What it is called there.
        build: Makes it, with random weights, and an example of its input.
    """

    package: str
    name: str
    build: Callable[[], Made]

    @property
    def key(self) -> str:
        """The package and the name, which no other architecture has."""
        return f"{self.package}/{self.name}"


def importable(package: str) -> str:
    """Return the name under which a package of pip is imported."""
    return package.replace("-", "_")


class LSTMClassifier(nn.Module):
    """Words to classes: an embedding, an LSTM, a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.hidden = nn.Linear(32, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, words: Tensor) -> Tensor:
        """Return the classes' logits."""
        _, (last, _) = self.lstm(self.embedding(words))
        logits: Tensor = self.head(torch.tanh(self.hidden(last[-1])))
        return logits


def architectures() -> list[Architecture]:
    """Return all architectures of the table in docs/models.md; packages are imported when one is built."""
    families: dict[str, dict[str, Callable[[], Made]]] = {
        "transformers": _transformers(),
        "pytorchcv": {name.rpartition(".")[2]: _pytorchcv(name) for name in PYTORCHCV},
        "torch": {
            "nn.Transformer": _torch_transformer,
            "LSTM classifier": lambda: (LSTMClassifier(), torch.randint(0, 100, (2, 7))),
        },
        "timm": {name: _timm(name, size) for name, size in TIMM.items()},
        "vit-pytorch": _vit_pytorch(),
        "x-transformers": _x_transformers(),
        "diffusers": _diffusers(),
        "denoising-diffusion-pytorch": _denoising_diffusion(),
        "monai": _monai(),
        "torch_geometric": _torch_geometric(),
        "stable-baselines3": _stable_baselines(),
        "pytorch-tabnet": {"TabNet": _tabnet, "TabNet, entmax": lambda: _tabnet(mask_type="entmax")},
        "rtdl_revisiting_models": _rtdl(),
        "rtdl_num_embeddings": {"PLR, MLP": _num_embeddings},
    }
    return [Architecture(package, name, build) for package, some in families.items() for name, build in some.items()]


def without_torchvision() -> None:
    """Let packages import torchvision that only ask for it: none of these networks uses it."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    for name in ("", ".transforms", ".transforms.functional", ".utils", ".datasets", ".models", ".ops", ".ops.misc"):
        sys.modules[f"torchvision{name}"] = MagicMock(__version__="0.0", __spec__=None, __path__=[])
    # Asked for by isinstance, which wants a class.
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (nn.Module,), {})  # type: ignore[attr-defined]


def _of(module: str, kind: str, example: Callable[[], Example], *args: Any, **options: Any) -> Callable[[], Made]:
    """Return what builds a class of a module, imported then."""

    def build() -> Made:
        if module.startswith("vit_pytorch"):
            without_torchvision()
        return getattr(importlib.import_module(module), kind)(*args, **options), example()

    return build


def _image(size: int = 64, channels: int = 3, axes: int = 2) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, channels, *[size] * axes)


def _pytorchcv(name: str) -> Callable[[], Made]:
    module, _, function = name.partition(".")

    def build() -> Made:
        model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)()
        size = min(64, *getattr(model, "in_size", (224, 224)))
        try:  # the classifiers of some pool over maps of a fixed size
            with torch.no_grad():
                model.eval()(torch.randn(1, 3, size, size))
        except RuntimeError:
            size = model.in_size[0]
        return model, torch.randn(2, 3, size, size)

    return build


def _torch_transformer() -> Made:
    model = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
    return model, (torch.randn(2, 7, 32), torch.randn(2, 5, 32))


# With the size of their input.
TIMM = {
    "coat_lite_tiny": 224,
    "convnextv2_atto": 64,
    "edgenext_xx_small": 64,
    "fastvit_t8": 64,
    "gmixer_24_224": 224,
    "lcnet_050": 64,
    "levit_128s": 224,
    "mobileone_s0": 64,
    "mobilevit_xxs": 64,
    "poolformer_s12": 64,
    "repvgg_a0": 64,
    "resnest14d": 64,
    "rexnet_100": 64,
    "tf_efficientnetv2_b0": 64,
    "vit_tiny_patch16_224": 224,
    "xcit_nano_12_p16_224": 224,
}


def _timm(name: str, size: int) -> Callable[[], Made]:
    def build() -> Made:
        without_torchvision()
        return importlib.import_module("timm").create_model(name, num_classes=10), torch.randn(2, 3, size, size)

    return build


def _vit_pytorch() -> dict[str, Callable[[], Made]]:
    image = _image(64)
    vit: dict[str, Any] = {"image_size": 64, "num_classes": 10, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    patches: dict[str, Any] = vit | {"patch_size": 16}

    def of(file: str, kind: str, *args: Any, **options: Any) -> Callable[[], Made]:
        return _of(f"vit_pytorch.{file}", kind, image, *args, **options)

    return {
        "ViT": of("vit", "ViT", **patches),
        "SimpleViT": of("simple_vit", "SimpleViT", **patches),
        "SimpleViT, registers": of("simple_vit_with_register_tokens", "SimpleViT", **patches),
        "ViT, parallel": of("parallel_vit", "ViT", **patches),
        "ViT, patch merger": of("vit_with_patch_merger", "ViT", **patches, patch_merge_num_tokens=4),
        "ViT, small data": of("vit_for_small_dataset", "ViT", **patches),
        "normalised ViT": of("normalized_vit", "nViT", **patches),
        "DeepViT": of("deepvit", "DeepViT", **patches),
        "RvT": of("rvt", "RvT", **patches),
        "CaiT": of("cait", "CaiT", **patches, cls_depth=1),
        "NesT": of(
            "nest",
            "NesT",
            image_size=64,
            patch_size=8,
            dim=32,
            heads=2,
            num_hierarchies=2,
            block_repeats=(1, 1),
            num_classes=10,
        ),
        "PiT": of("pit", "PiT", **(patches | {"depth": (1, 1, 1), "patch_size": 8})),
        "CCT": of(
            "cct",
            "CCT",
            img_size=64,
            embedding_dim=32,
            n_conv_layers=2,
            num_layers=2,
            num_heads=2,
            mlp_ratio=2.0,
            num_classes=10,
        ),
        "CvT": of("cvt", "CvT", num_classes=10, s1_emb_dim=16, s2_emb_dim=16, s3_emb_dim=32, s3_heads=2, s3_depth=2),
        "LeViT": of(
            "levit",
            "LeViT",
            image_size=64,
            num_classes=10,
            stages=3,
            dim=(32, 48, 64),
            depth=1,
            heads=(2, 2, 2),
            mlp_mult=2,
        ),
        "MobileViT": of(
            "mobile_vit", "MobileViT", (64, 64), [32, 40, 48], [8, 16, 16, 16, 24, 24, 32, 32, 48, 48, 64], 10
        ),
        "MaxViT": of(
            "max_vit", "MaxViT", num_classes=10, dim=16, depth=(1, 1), dim_head=8, window_size=4, dim_conv_stem=8
        ),
        "TwinsSVT": _of(
            "vit_pytorch.twins_svt",
            "TwinsSVT",
            _image(224),
            num_classes=10,
            s1_emb_dim=16,
            s2_emb_dim=16,
            s3_emb_dim=32,
            s4_emb_dim=32,
            s3_depth=1,
            s4_depth=1,
        ),
        "T2TViT": of("t2t", "T2TViT", image_size=64, num_classes=10, dim=32, depth=2, heads=2, mlp_dim=64),
        "XCiT": of("xcit", "XCiT", **patches, cls_depth=1),
        "LookViT": of(
            "look_vit",
            "LookViT",
            image_size=64,
            patch_size=16,
            highres_patch_size=8,
            dim=32,
            depth=2,
            heads=2,
            dim_head=16,
            mlp_factor=2,
            highres_mlp_factor=2,
            cross_attn_heads=2,
            cross_attn_dim_head=16,
            num_classes=10,
        ),
        "ViViT": _of(
            "vit_pytorch.vivit",
            "ViViT",
            lambda: torch.randn(2, 3, 4, 32, 32),
            image_size=32,
            image_patch_size=16,
            frames=4,
            frame_patch_size=2,
            num_classes=10,
            dim=32,
            spatial_depth=1,
            temporal_depth=1,
            heads=2,
            mlp_dim=64,
        ),
    }


def _x_transformers() -> dict[str, Callable[[], Made]]:
    def language(layers: str = "Decoder", **options: Any) -> Callable[[], Made]:
        def build() -> Made:
            x: Any = importlib.import_module("x_transformers")
            inner = getattr(x, layers)(dim=32, depth=2, heads=2, attn_dim_head=16, **options)
            model = x.TransformerWrapper(num_tokens=100, max_seq_len=32, attn_layers=inner)
            return model, torch.randint(0, 100, (2, 12))

        return build

    return {
        "Decoder": language(),
        "Encoder": language("Encoder"),
        "Decoder, SwiGLU, rotary": language(ff_glu=True, ff_swish=True, rotary_pos_emb=True),
        "Decoder, ReLU squared": language(ff_relu_squared=True),
        "Decoder, gated residual": language(gate_residual=True),
        "Decoder, RMSNorm, no bias": language(use_rmsnorm=True, ff_no_bias=True),
    }


def _diffusers() -> dict[str, Callable[[], Made]]:
    blocks: dict[str, Any] = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
    image = {"in_channels": 3, "out_channels": 3}
    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    encoder, decoder = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    auto: dict[str, Any] = {"down_block_types": encoder, "up_block_types": decoder} | image | blocks
    step = torch.tensor([3, 4])

    def noisy(channels: int = 3, size: int = 16) -> Callable[[], Example]:
        return lambda: (torch.randn(2, channels, size, size), step)

    return {
        "UNet2DModel": _of(
            "diffusers",
            "UNet2DModel",
            noisy(),
            sample_size=16,
            down_block_types=down,
            up_block_types=up,
            **image,
            **blocks,
        ),
        "UNet2DConditionModel": _of(
            "diffusers",
            "UNet2DConditionModel",
            lambda: (torch.randn(2, 4, 16, 16), step, torch.randn(2, 5, 24)),
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24,
            attention_head_dim=4,
            **blocks,
        ),
        "AutoencoderKL": _of("diffusers", "AutoencoderKL", _image(32), **auto),
        "VQModel": _of("diffusers", "VQModel", _image(32), num_vq_embeddings=32, **auto),
        "DiTTransformer2DModel": _of(
            "diffusers",
            "DiTTransformer2DModel",
            lambda: {"hidden_states": torch.randn(2, 4, 8, 8), "timestep": step, "class_labels": torch.tensor([1, 2])},
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            num_embeds_ada_norm=10,
            norm_num_groups=8,
        ),
        "UNet1DModel": _of(
            "diffusers",
            "UNet1DModel",
            lambda: (torch.randn(2, 14, 16), step),
            in_channels=14,
            out_channels=14,
            down_block_types=("DownResnetBlock1D",) * 2,
            up_block_types=("UpResnetBlock1D",),
            mid_block_type="MidResTemporalBlock1D",
            out_block_type="OutConv1DBlock",
            block_out_channels=(16, 32),
            layers_per_block=1,
            time_embedding_type="positional",
            use_timestep_embedding=True,
            act_fn="mish",
            extra_in_channels=0,
        ),
    }


def _denoising_diffusion() -> dict[str, Callable[[], Made]]:
    def of(file: str, kind: str, *shape: int, **options: Any) -> Callable[[], Made]:
        def build() -> Made:
            without_torchvision()
            make = getattr(importlib.import_module(f"denoising_diffusion_pytorch.{file}"), kind)
            return make(**options), (torch.randn(2, *shape), torch.tensor([3.0, 4.0]))

        return build

    karras = {
        "dim": 16,
        "dim_max": 32,
        "channels": 3,
        "num_downsamples": 1,
        "num_blocks_per_stage": 1,
        "attn_dim_head": 8,
    }
    return {
        "Unet": of("denoising_diffusion_pytorch", "Unet", 3, 16, 16, dim=16, dim_mults=(1, 2)),
        "Unet1D": of("denoising_diffusion_pytorch_1d", "Unet1D", 3, 16, dim=16, dim_mults=(1, 2), channels=3),
        "KarrasUnet": of("karras_unet", "KarrasUnet", 3, 16, 16, image_size=16, **karras),
        "UViT": of("simple_diffusion", "UViT", 3, 32, 32, dim=16, dim_mults=(1, 2), vit_depth=1),
    }


def _monai() -> dict[str, Callable[[], Made]]:
    ends: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}

    def of(kind: str, size: int = 32, colours: int = 1, axes: int = 2, **options: Any) -> Callable[[], Made]:
        return _of("monai.networks.nets", kind, _image(size, colours, axes), **options)

    units: dict[str, Any] = {"channels": (8, 16, 32), "strides": (2, 2)}
    return {
        "UNet": of("UNet", **ends, **units, num_res_units=2),
        "AttentionUnet": of("AttentionUnet", **ends, **units),
        "BasicUNet": of("BasicUNet", **ends, features=(8, 8, 16, 16, 32, 8)),
        "BasicUNetPlusPlus": of("BasicUNetPlusPlus", **ends, features=(8, 8, 16, 16, 32, 8)),
        "DynUNet": of(
            "DynUNet",
            **ends,
            kernel_size=[3, 3, 3],
            strides=[1, 2, 2],
            upsample_kernel_size=[2, 2],
            filters=[8, 16, 32],
        ),
        "SegResNet": of("SegResNet", **ends, init_filters=8),
        "VNet": of("VNet", axes=2, **ends),
        "UNETR": of("UNETR", img_size=(32, 32), feature_size=8, hidden_size=24, mlp_dim=48, num_heads=2, **ends),
        "SwinUNETR": of("SwinUNETR", size=64, feature_size=12, **ends),
        "HighResNet, 3 dimensions": of("HighResNet", size=16, axes=3, in_channels=1, out_channels=2),
        "DenseNet": of("DenseNet", **ends, init_features=8, growth_rate=4, block_config=(2, 2), bn_size=2),
        "ResNet": of(
            "ResNet",
            block="basic",
            layers=[1, 1, 1, 1],
            block_inplanes=[8, 8, 16, 16],
            spatial_dims=2,
            n_input_channels=1,
            num_classes=2,
        ),
        "SENet": of("SEResNet50", size=64, colours=3, spatial_dims=2, in_channels=3, num_classes=2),
        "AutoEncoder": of("AutoEncoder", **ends, channels=(8, 16, 32), strides=(2, 2, 2)),
        "Regressor": of("Regressor", in_shape=(1, 32, 32), out_shape=(2,), **units),
        "MedNeXt": of(
            "MedNeXt",
            spatial_dims=2,
            init_filters=8,
            in_channels=1,
            out_channels=2,
            encoder_expansion_ratio=2,
            decoder_expansion_ratio=2,
            bottleneck_expansion_ratio=2,
            blocks_down=(1, 1),
            blocks_bottleneck=1,
            blocks_up=(1, 1),
        ),
    }


def _torch_geometric() -> dict[str, Callable[[], Made]]:
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])

    def graph() -> Example:
        return torch.randn(6, 8), edges

    def atoms() -> Example:
        return torch.tensor([6, 1, 8, 1, 6, 7]), torch.randn(6, 3)

    sizes: dict[str, Any] = {"in_channels": 8, "hidden_channels": 16, "num_layers": 2, "out_channels": 4}
    models = {
        name: _of("torch_geometric.nn", name, graph, **sizes) for name in ("GCN", "GraphSAGE", "GAT", "GIN", "EdgeCNN")
    }
    return models | {
        "PNA": _of(
            "torch_geometric.nn",
            "PNA",
            graph,
            **sizes,
            aggregators=["mean", "max"],
            scalers=["identity"],
            deg=torch.tensor([0, 4, 2]),
        ),
        "GCN, batch norm, jump": _of("torch_geometric.nn", "GCN", graph, **sizes, norm="batch_norm", jk="cat"),
        "MLP": _of("torch_geometric.nn", "MLP", lambda: torch.randn(6, 8), [8, 16, 4]),
        "GraphUNet": _of("torch_geometric.nn", "GraphUNet", graph, 8, 16, 4, depth=2),
        "AttentiveFP": _of(
            "torch_geometric.nn",
            "AttentiveFP",
            lambda: (torch.randn(6, 8), edges, torch.randn(8, 5), torch.zeros(6, dtype=torch.long)),
            8,
            16,
            4,
            edge_dim=5,
            num_layers=2,
            num_timesteps=2,
        ),
        "LINKX": _of("torch_geometric.nn", "LINKX", graph, 6, 8, 16, 4, 2),
    }


def _stable_baselines() -> dict[str, Callable[[], Made]]:
    def policy(algorithm: str, kind: str, parts: str, pixels: bool = False) -> Callable[[], Made]:
        """Return what builds the layers of a policy without its preparation, which casts everything to float32."""

        def build() -> Made:
            spaces: Any = importlib.import_module("gymnasium.spaces")
            policies: Any = importlib.import_module(f"stable_baselines3.{algorithm}.policies")
            seen = spaces.Box(0, 255, (3, 64, 64), dtype="uint8") if pixels else spaces.Box(-1.0, 1.0, (6,))
            action = spaces.Box(-1.0, 1.0, (2,)) if algorithm in ("sac", "td3") else spaces.Discrete(4)
            model = getattr(policies, kind)(seen, action, lambda _: 1e-3)
            layers = nn.Sequential(*(model.get_submodule(part) for part in parts.split()))
            return layers, torch.rand(2, 3, 64, 64) if pixels else torch.randn(2, 6)

        return build

    policy_net = "features_extractor mlp_extractor.policy_net action_net"
    q_net = "q_net.features_extractor q_net.q_net"
    return {
        "PPO, MLP policy": policy("ppo", "MlpPolicy", policy_net),
        "PPO, CNN policy": policy("ppo", "CnnPolicy", policy_net, pixels=True),
        "DQN, Q network": policy("dqn", "MlpPolicy", q_net),
        "DQN, CNN Q network": policy("dqn", "CnnPolicy", q_net, pixels=True),
        "SAC, actor": policy("sac", "MlpPolicy", "actor.features_extractor actor.latent_pi actor.mu"),
        "TD3, actor": policy("td3", "MlpPolicy", "actor.features_extractor actor.mu"),
    }


def _tabnet(**options: Any) -> Made:
    tabnet: Any = importlib.import_module("pytorch_tabnet.tab_network")
    model = tabnet.TabNet(8, 3, n_d=8, n_a=8, n_steps=2, group_attention_matrix=torch.eye(8), **options)
    for module in model.modules():  # it keeps matrices in attributes, which model.double() leaves in float32
        for name in [name for name, value in vars(module).items() if isinstance(value, Tensor)]:
            module.register_buffer(name, module.__dict__.pop(name))
    return model, torch.randn(16, 8)


def _rtdl() -> dict[str, Callable[[], Made]]:
    def of(kind: str, example: Callable[[], Example], **options: Any) -> Callable[[], Made]:
        return _of("rtdl_revisiting_models", kind, example, **options)

    def table() -> Tensor:
        return torch.randn(16, 8)

    return {
        "MLP": of("MLP", table, d_in=8, d_out=3, n_blocks=2, d_block=16, dropout=0.1),
        "ResNet": of(
            "ResNet",
            table,
            d_in=8,
            d_out=3,
            n_blocks=2,
            d_block=16,
            d_hidden_multiplier=2.0,
            dropout1=0.1,
            dropout2=0.0,
        ),
        "FT-Transformer": of(
            "FTTransformer",
            lambda: (torch.randn(4, 5), torch.zeros(4, 2, dtype=torch.long)),
            n_cont_features=5,
            cat_cardinalities=[3, 4],
            d_out=3,
            n_blocks=2,
            d_block=16,
            attention_n_heads=2,
            attention_dropout=0.1,
            ffn_d_hidden_multiplier=2.0,
            ffn_dropout=0.1,
            residual_dropout=0.0,
        ),
    }


def _num_embeddings() -> Made:
    embeddings: Any = importlib.import_module("rtdl_num_embeddings")
    made = embeddings.PeriodicEmbeddings(8, 12, n_frequencies=6, lite=False)
    return nn.Sequential(made, nn.Flatten(), nn.Linear(96, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(16, 8)


def _transformers() -> dict[str, Callable[[], Made]]:
    image = _image(64)
    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    text: dict[str, Any] = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    speech: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16, 16),
        "conv_kernel": (10, 3),
        "conv_stride": (5, 2),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
    }

    def words() -> Tensor:
        return torch.randint(3, 100, (2, 12))

    def of(kind: str, head: str, example: Callable[[], Example], **options: Any) -> Callable[[], Made]:
        def build() -> Made:
            transformers: Any = importlib.import_module("transformers")
            config = getattr(transformers, f"{kind}Config")(**options)
            return getattr(transformers, f"{kind}{head}")(config), example()

        return build

    def reader(kind: str, head: str = "ForSequenceClassification", **options: Any) -> Callable[[], Made]:
        return of(kind, head, lambda: {"input_ids": words()}, **text | options)

    def writer(kind: str, head: str = "ForCausalLM", **options: Any) -> Callable[[], Made]:
        return of(kind, head, lambda: {"input_ids": words(), "use_cache": False}, **text | options)

    def pair() -> Example:
        return {"input_ids": words(), "decoder_input_ids": words()[:, :5], "use_cache": False}

    t5: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    bart = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    }
    llama = small | {"num_key_value_heads": 2, "head_dim": 16}
    stages: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [16, 32, 48, 64]}

    def whisper() -> Made:
        transformers: Any = importlib.import_module("transformers")
        config = transformers.WhisperConfig(
            **text | bart, decoder_start_token_id=1, max_source_positions=20, num_mel_bins=8
        )
        return transformers.WhisperModel(config).encoder, torch.randn(2, 8, 40)

    return {
        "ResNet-50": of("ResNet", "ForImageClassification", image),
        "RegNet": of("RegNet", "ForImageClassification", image, **stages, depths=[1, 1, 1, 1], groups_width=8),
        "MobileNetV2": of("MobileNetV2", "ForImageClassification", image, depth_multiplier=0.35, image_size=64),
        "EfficientNet": of(
            "EfficientNet",
            "ForImageClassification",
            image,
            image_size=64,
            width_coefficient=0.5,
            depth_coefficient=0.5,
            hidden_dim=640,
        ),
        "ConvNeXt": of("ConvNext", "ForImageClassification", image, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]),
        "ConvNeXt V2": of(
            "ConvNextV2", "ForImageClassification", image, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]
        ),
        "PoolFormer": of(
            "PoolFormer", "ForImageClassification", image, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1]
        ),
        "ViT": of("ViT", "ForImageClassification", image, image_size=64, **small),
        "DeiT": of("DeiT", "ForImageClassification", image, image_size=64, **small),
        "DINOv2": of("Dinov2", "Model", image, image_size=56, patch_size=14, use_swiglu_ffn=True, **small),
        "Swin": of(
            "Swin", "ForImageClassification", image, image_size=64, embed_dim=16, depths=[1, 1], num_heads=[2, 2]
        ),
        "SegFormer": of(
            "Segformer",
            "ForSemanticSegmentation",
            image,
            hidden_sizes=[16, 16, 32, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=32,
        ),
        "CLIP": _clip,
        "BERT": reader("Bert", **small),
        "RoBERTa": reader("Roberta", **small | {"max_position_embeddings": 32}),
        "ELECTRA": reader("Electra", embedding_size=32, **small),
        "DistilBERT": reader("DistilBert", dim=32, n_layers=2, n_heads=2, hidden_dim=64),
        "ALBERT": reader("Albert", "Model", embedding_size=16, **small),
        "ModernBERT": reader("ModernBert", cls_token_id=1, sep_token_id=2, **small),
        "GPT-2": writer("GPT2", "LMHeadModel", n_embd=32, n_layer=2, n_head=2, n_positions=32),
        "GPT-NeoX": writer("GPTNeoX", **small),
        "OPT": writer(
            "OPT", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64, word_embed_proj_dim=32
        ),
        "BLOOM": writer("Bloom", hidden_size=32, n_layer=2, n_head=2),
        "Phi": writer("Phi", **small),
        "Llama": writer("Llama", **llama),
        "Gemma": writer("Gemma", **llama),
        "Mamba": writer("Mamba", hidden_size=32, state_size=8, num_hidden_layers=2),
        "T5": of("T5", "ForConditionalGeneration", pair, **text | t5),
        "T5, gated": of("T5", "ForConditionalGeneration", pair, **text | t5, feed_forward_proj="gated-gelu"),
        "BART": of("Bart", "Model", pair, **text | bart),
        "Whisper encoder": whisper,
        "wav2vec 2.0": of("Wav2Vec2", "Model", lambda: torch.randn(2, 800), **speech),
        "HuBERT": of("Hubert", "Model", lambda: torch.randn(2, 800), **speech),
    }


def _clip() -> Made:
    transformers: Any = importlib.import_module("transformers")
    part = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config=part | {"vocab_size": 100, "eos_token_id": 2, "bos_token_id": 1},
        vision_config=part | {"image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    return transformers.CLIPModel(config), {
        "input_ids": torch.randint(3, 100, (2, 12)),
        "pixel_values": torch.randn(2, 3, 64, 64),
    }
