"""Residual networks for images, with the parameter names that trained checkpoints have.

Written here because torchvision has no build for every platform that torch runs on; the names are
torchvision's, so ImageNet, HMR and SPIN checkpoints load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError, short
from ..io.files import open_file
from ..io.torch_files import load_torch


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        # The stride is in the 3x3 layer (torchvision, "ResNet v1.5"), in the paper in the first.
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Residual network: images to feature vectors.

    Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016),
    table 1; ProHMR's encoder is the one of 50 layers. Parameter names are torchvision's.

    Args:
        block: `"basic"` (18 and 34 layers) or `"bottleneck"` (50 and more).
        layers: Blocks of each of the four stages.
        width: Channels of the first stage, 64 in the paper; half of it is about a quarter of the
            work, and of the weights.
        classes: Size of the classifier `fc`; 0 leaves it out, and the features come out.

    Attributes:
        features: Size of the feature vectors: 512 of basic blocks, 2048 of bottlenecks, where the
            width is 64.

    Raises:
        InputError: If the block is unknown, there are not four stages, or the width is below 1.

    Example:
        >>> import torch
        >>> from propose_prob.images.resnet import resnet18
        >>> resnet18().eval()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        block: str = "bottleneck",
        layers: tuple[int, ...] = (3, 4, 6, 3),
        *,
        width: int = 64,
        classes: int = 0,
    ) -> None:
        super().__init__()
        kinds: dict[str, type[_BasicBlock] | type[_Bottleneck]] = {
            "basic": _BasicBlock,
            "bottleneck": _Bottleneck,
        }
        if block not in kinds or len(layers) != 4:
            raise InputError(
                f"expected a block of {', '.join(kinds)} and 4 stages, got {block!r} and {layers}"
            )
        if width < 1:
            raise InputError(f"expected a width of at least 1 channel, got {width}")
        kind = kinds[block]
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, count in enumerate(layers):
            inner = width * 2**stage
            blocks = []
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                out = inner * kind.expansion
                downsample = None
                if stride != 1 or channels != out:
                    downsample = nn.Sequential(
                        nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                    )
                blocks.append(kind(channels, inner, stride, downsample))
                channels = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.features = channels
        self.fc = nn.Linear(channels, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the four stages, strides 4, 8, 16 and 32, of images `(B, 3, H, W)`."""
        _check_images(images)
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Features `(B, features)`, or class scores `(B, classes)`, of images `(B, 3, H, W)`.

        Images are RGB, normalized as the checkpoint wants it (`images.crops.normalize_image`).

        Raises:
            InputError: If the images have another shape or are smaller than 32 pixels.
        """
        x = self.maps(images)[-1].mean((-2, -1))
        return x if self.fc is None else self.fc(x)


def resnet18(*, width: int = 64, classes: int = 0) -> ResNet:
    """The network of 18 layers; 11,689,512 parameters with 1000 classes.

    Example:
        >>> sum(parameter.numel() for parameter in resnet18().parameters())
        11176512
    """
    return ResNet("basic", (2, 2, 2, 2), width=width, classes=classes)


def resnet50(*, width: int = 64, classes: int = 0) -> ResNet:
    """The network of 50 layers; 25,557,032 parameters with 1000 classes.

    Example:
        >>> sum(parameter.numel() for parameter in resnet50().parameters())
        23508032
    """
    return ResNet("bottleneck", (3, 4, 6, 3), width=width, classes=classes)


def load_backbone(network: ResNet, path: str | Path) -> list[str]:
    """Loads the weights of a trained network into one without its head.

    Takes files of torchvision, HMR and SPIN: a state dict, or one under `model` or `state_dict`,
    with or without a prefix such as `module.` or `backbone.`. What is not the network's (a
    classifier, regression heads) is left out.

    Args:
        network: Receives the weights.
        path: `.safetensors`, or a file of `torch.save`, read without executing anything.

    Returns:
        Names in the file that were left out.

    Raises:
        InputError: If the file cannot be read, or lacks or misshapes a weight of the network; the
            message names the first ones.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from propose_prob.images.resnet import resnet18
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(resnet18(width=8, classes=10).state_dict(), f"{folder}/trained.pt")
        ...     load_backbone(resnet18(width=8), f"{folder}/trained.pt")
        ['fc.bias', 'fc.weight']
    """
    path = Path(path)
    tensors = _state_dict(path)
    wanted = network.state_dict()
    # The names of all blocks end alike: the longest common prefix that makes most of them fit.
    anchors = [name[: -len("conv1.weight")] for name in tensors if name.endswith("conv1.weight")]
    prefixes = {anchor for anchor in anchors if f"{anchor}layer1.0.conv1.weight" in tensors}
    if not prefixes:
        raise InputError(f"{path.name}: expected the weights of a ResNet, found no layer1.0.conv1")
    prefix = min(prefixes, key=len)
    chosen = {}
    for name, own in wanted.items():
        value = tensors.get(prefix + name)
        if value is None:
            # Files of old versions do not count batches.
            if name.endswith("num_batches_tracked"):
                continue
            raise InputError(f"{path.name}: expected a weight {prefix + name}, found none")
        if value.shape != own.shape:
            raise InputError(
                f"{path.name}: expected {prefix + name} of shape {tuple(own.shape)}, "
                f"got {tuple(value.shape)}"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"{path.name}: expected finite weights, got others in {prefix + name}")
        chosen[name] = value
    network.load_state_dict(chosen, strict=False)
    return sorted(name for name in tensors if name.removeprefix(prefix) not in chosen)


def _state_dict(path: Path) -> dict[str, Tensor]:
    with open_file(path) as file:
        if path.suffix != ".safetensors":
            loaded = load_torch(file, path)
        else:
            try:
                return load_file(path)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path}: cannot be read ({short(str(error))})") from None
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: expected a state dict, got {type(loaded).__name__}")
    return {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(
            f"expected floating-point images of shape (B, 3, H, W), got {tuple(images.shape)} of "
            f"{images.dtype}"
        )
    if min(images.shape[-2:]) < 32:
        raise InputError(f"expected images of at least 32 pixels, got {tuple(images.shape[-2:])}")
