"""The PyTorch side of the comparisons: the network of a layer list and its training step.

The same layers, weights, recipe and augmentation as ours, written as a PyTorch
user would: eager, channels last, uint8 data set in memory.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from deepmaker_jax.arch import INPUT, ArchSpec, Layer, layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.models.network import BATCH_NORM_MOMENTUM
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON
from deepmaker_jax.train.optimizer import ADAMW_DECAY_FACTOR, WARM_UP_SHARE, base_learning_rate

ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


class TorchNetwork(nn.Module):
    """Runs a layer list of a post-activation network: Float[b, c, h, w] to logits."""

    def __init__(self, arch: ArchSpec, input_scale: np.ndarray):
        super().__init__()
        self.layers = layers(arch)
        self.register_buffer("input_scale", torch.tensor(input_scale)[:, None, None])
        self.parts = nn.ModuleDict({layer.name: _module(layer) for layer in self.layers})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits from raw pixels 0..255."""
        tensors = {INPUT: images * self.input_scale}
        for layer in self.layers:
            inputs = [tensors[name] for name in layer.inputs]
            if layer.op == "concat":
                tensors[layer.name] = torch.cat(inputs, 1)
            else:
                tensors[layer.name] = self.parts[layer.name](inputs[0])
        return tensors[self.layers[-1].name]

    def load(self, variables: dict[str, Any]) -> "TorchNetwork":
        """Copies our weights and running statistics; returns itself."""
        with torch.no_grad():
            for name, values in variables["params"].items():
                part = self.parts[name.removesuffix("_bn")]
                if name.endswith("_bn"):
                    part.norm.weight.copy_(torch.from_numpy(values["scale"]))
                    part.norm.bias.copy_(torch.from_numpy(values["bias"]))
                    running = variables["batch_stats"][name]
                    part.norm.running_mean.copy_(torch.from_numpy(running["mean"]))
                    part.norm.running_var.copy_(torch.from_numpy(running["var"]))
                elif values["kernel"].ndim == 4:
                    part.conv.weight.copy_(torch.from_numpy(values["kernel"]).permute(3, 2, 0, 1))
                else:
                    part.weight.copy_(torch.from_numpy(values["kernel"]).T)
                    part.bias.copy_(torch.from_numpy(values["bias"]))
        return self


def _module(layer: Layer) -> nn.Module:
    channels = layer.shape[-1]
    if layer.op == "conv":
        # "SAME" at stride 2 of an even side pads below and right alone.
        pad = nn.ZeroPad2d((0, 1, 0, 1)) if layer.stride == 2 else nn.Identity()
        conv = nn.Conv2d(
            layer.in_channels, channels, layer.kernel, stride=layer.stride, bias=False,
            padding=0 if layer.stride == 2 else layer.kernel // 2,
        )  # fmt: skip
        norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=1 - BATCH_NORM_MOMENTUM)
        activation = ACTIVATIONS[layer.activation](inplace=True)
        return nn.Sequential(OrderedDict(pad=pad, conv=conv, norm=norm, activation=activation))
    if layer.op == "dense":
        return nn.Linear(layer.in_channels, channels)
    if layer.op == "max_pool":
        return nn.MaxPool2d(2)
    if layer.op == "avg_pool":
        return nn.AvgPool2d(2)
    if layer.op == "global_pool":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Identity()


def make_optimizer(network: nn.Module, arch: ArchSpec, settings: TrainConfig):
    """Returns the optimizer of an architecture; weight decay reaches kernels only."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    rate = base_learning_rate(arch, settings)
    groups = [{"params": kernels, "weight_decay": settings.weight_decay},
              {"params": rest, "weight_decay": 0.0}]  # fmt: skip
    if arch.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=True)
    if arch.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate)
    groups[0]["weight_decay"] *= ADAMW_DECAY_FACTOR
    return torch.optim.AdamW(groups, lr=rate)


def augment(images: torch.Tensor, *, crop: int, flip: bool) -> torch.Tensor:
    """Shifts and mirrors a batch, UInt8[b, h, w, c], as ours does; Float32[b, c, h, w]."""
    b, height, width, _ = images.shape
    shift = torch.randint(-crop, crop + 1, (b, 2))
    rows = torch.arange(height)[None] + shift[:, :1]
    columns = torch.arange(width).repeat(b, 1)
    if flip:
        mirrored = torch.rand(b, 1) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = columns + shift[:, 1:]
    rows, columns = _inside(rows, height), _inside(columns, width)
    taken = images[torch.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return taken.permute(0, 3, 1, 2).float()  # a channels-last view: no copy


def _inside(index: torch.Tensor, size: int) -> torch.Tensor:
    last = size - 1
    return (last - (last - index.abs()).abs()).clamp(0, last)


def learning_rate_share(progress: float) -> float:
    """The one-cycle schedule of `train.optimizer.schedule`."""
    if progress < WARM_UP_SHARE:
        return progress / WARM_UP_SHARE
    falling = (progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)
    return 0.5 * (1 + float(np.cos(np.pi * falling)))


def train(
    arch: ArchSpec,
    variables: dict[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    *,
    settings: TrainConfig,
) -> tuple[TorchNetwork, float]:
    """Trains on the examples of `order`, one batch after the other.

    Args:
      arch: the architecture.
      variables: initial weights.
      images: UInt8[n, h, w, c].
      labels: Int32[n].
      order: Int[steps * b], rows of the data set.
      settings: the recipe; one-cycle schedule, no clipping.

    Returns:
      (network, mean loss).
    """
    network = TorchNetwork(arch, np.asarray(variables["constants"]["input_scale"])).load(variables)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(network, arch, settings)
    rate, size = base_learning_rate(arch, settings), settings.batch_size
    data, targets = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    num_steps, total = len(order) // size, 0.0
    for step in range(num_steps):
        rows = torch.from_numpy(order[step * size : (step + 1) * size].astype(np.int64))
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_share((step + 0.5) / num_steps)
        x = augment(data[rows], crop=settings.crop or 0, flip=settings.flip or False)
        loss = functional.cross_entropy(network(x), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach())
    return network, total / max(1, num_steps)


@torch.no_grad()
def predict(network: TorchNetwork, images: np.ndarray, *, batch_size: int = 250) -> np.ndarray:
    """Returns the logits of every image, Float32[n, classes], in evaluation mode."""
    network.eval()
    parts = []
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float()
        parts.append(network(x.contiguous(memory_format=torch.channels_last)).numpy())
    return np.concatenate(parts)
