"""The plain Flax network of a layer list."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepmaker_jax.arch import INPUT, Layer
from deepmaker_jax.models import ops
from deepmaker_jax.models.activation import activate
from deepmaker_jax.models.dense import dense
from deepmaker_jax.models.stages import DenseStage, dense_stages, pays
from deepmaker_jax.types import Array

BATCH_NORM_MOMENTUM = 0.9


class Conv(nn.Module):
    """A convolution of a layer list, `ops.conv`, with a bias if the layer has one."""

    layer: Layer
    compute: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        layer = self.layer
        shape = (layer.kernel, layer.kernel, layer.in_channels, layer.shape[-1])
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        if self.compute == "float32":
            x = ops.conv(x, kernel, layer.stride)
        else:
            x = _narrow(x, kernel, layer.stride, jnp.dtype(self.compute))
        if layer.bias:
            bias = self.param("bias", nn.initializers.zeros, shape[-1:])
            x = x + bias[None, None, None, :]
        return x


def _narrow(x: Array, kernel: Array, stride: int, dtype: jnp.dtype) -> Array:
    """Returns the convolution with operands of a narrower type, as it and its gradients are: summed
    in float32 and then rounded, where a size class's program keeps float32.

    A result of float32 would need the gradients by hand: JAX transposes a convolution only if its
    result has its operands' type.
    """
    strides, order = (stride, stride), ("NHWC", "HWIO", "NHWC")
    narrow = (x.astype(dtype), kernel.astype(dtype))
    z = jax.lax.conv_general_dilated(*narrow, strides, "SAME", dimension_numbers=order)
    return z.astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch norm and the activation behind it."""

    activation: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return ops.normalise(x, scale, bias, mean.value, var.value, self.activation)
        x, batch_mean, batch_var = ops.norm_activate(x, scale, bias, self.activation)
        if not self.is_initializing():
            mean.value = running_average(mean.value, batch_mean)
            var.value = running_average(var.value, batch_var)
        return x


def running_average(average: Array, now: Array) -> Array:
    """Returns what a step leaves of a batch norm's statistics, Float[c]."""
    return BATCH_NORM_MOMENTUM * average + (1 - BATCH_NORM_MOMENTUM) * now


class Affine(nn.Module):
    """A scale and a shift per channel: what a folded batch norm without a convolution is."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return x * scale[None, None, None, :] + bias[None, None, None, :]


class Network(nn.Module):
    """Runs a layer list.

    Collections: `params`; `batch_stats`, running means and variances;
    `constants`, whose `input_scale`, Float[c], multiplies the raw pixels. There
    is no shift, so that the scale folds exactly into the first convolution, zero
    padding included; the first batch norm learns the mean.

    Attributes:
      layers: operations in execution order, the last one gives the logits.
      folded: True for `fold`'s output: no batch norm, no input scale.
      compute: type of the convolutions' operands.
    """

    layers: tuple[Layer, ...]
    folded: bool = False
    compute: str = "float32"

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Returns logits, Float[b, classes], from raw pixels, Float[b, h, w, c] in 0..255."""
        x = images
        if not self.folded:
            scale = self.variable("constants", "input_scale", jnp.ones, images.shape[-1:])
            x = images * scale.value[None, None, None, :]
        tensors, done = {INPUT: x}, set[str]()
        # Only where a gradient is taken is it faster; float32 is what its loops are measured in.
        in_one = train and not self.is_initializing() and self.compute == "float32"
        stages = dense_stages(self.layers) if in_one and jax.default_backend() == "cpu" else {}
        for layer in self.layers:
            stage = stages.get(layer.name)
            if stage is not None and pays(tensors[stage.source].shape, stage):
                tensors[stage.output] = self._dense(stage, tensors[stage.source])
                done |= stage.names
            if layer.name not in done:
                inputs = [tensors[name] for name in layer.inputs]
                tensors[layer.name] = self._run(layer, inputs, train=train)
        return tensors[self.layers[-1].name]

    def _dense(self, stage: DenseStage, x: Array) -> Array:
        """Runs a stage in training as one operation, with the parameters that its layers have."""
        params, norms = self.variables["params"], [f"{name}_bn" for name in stage.convs]
        y, statistics = dense(
            x,
            tuple(params[name]["kernel"] for name in stage.convs),
            tuple(params[norm]["scale"] for norm in norms),
            tuple(params[norm]["bias"] for norm in norms),
            stage.wiring,
        )
        for norm, (mean, variance) in zip(norms, statistics, strict=True):
            old = self.variables["batch_stats"][norm]
            new = {
                "mean": running_average(old["mean"], mean),
                "var": running_average(old["var"], variance),
            }
            self.put_variable("batch_stats", norm, new)
        return y

    def _run(self, layer: Layer, inputs: list[Array], *, train: bool) -> Array:
        x = inputs[0]
        if layer.op == "conv":
            x = Conv(layer, self.compute, name=layer.name)(x)
        elif layer.op == "dense":
            x = nn.Dense(layer.shape[-1], name=layer.name)(x)
        elif layer.op == "concat":
            x = jnp.concatenate(inputs, axis=-1)
        elif layer.op == "max_pool":
            # Without a gradient to take, the one operation that a converter knows.
            x = ops.max_pool(x) if train else nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        elif layer.op == "avg_pool":
            x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        elif layer.op == "global_pool":
            # A window over the whole map: TFLite gets AVERAGE_POOL_2D, from a mean it gets SUM.
            x = nn.avg_pool(x, window_shape=x.shape[1:3])[:, 0, 0, :]
        if layer.norm:
            return BatchNorm(layer.activation, name=f"{layer.name}_bn")(x, train=train)
        if layer.op == "norm":
            x = Affine(name=f"{layer.name}_bn")(x)
        return activate(layer.activation, x)
