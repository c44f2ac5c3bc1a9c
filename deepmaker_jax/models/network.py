"""The plain Flax network of a layer list."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepmaker_jax.arch import INPUT, Layer, split_activation

BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hard_swish": nn.hard_swish,
    "silu": nn.silu,
    "swish": nn.swish,
    "elu": nn.elu,
    "selu": nn.selu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
}


def activate(name: str, x: jax.Array) -> jax.Array:
    """Applies an activation by name; "a/b" is `a` where x < 0 and `b` elsewhere; "" is none."""
    if not name:
        return x
    negative, positive = split_activation(name)
    if negative == positive:
        return ACTIVATIONS[positive](x)
    return jnp.where(x < 0, ACTIVATIONS[negative](x), ACTIVATIONS[positive](x))


class Affine(nn.Module):
    """A scale and a shift per channel: what a folded batch norm without a convolution is."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
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
    """

    layers: tuple[Layer, ...]
    folded: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits, Float[b, classes], from raw pixels, Float[b, h, w, c] in 0..255."""
        x = images
        if not self.folded:
            scale = self.variable("constants", "input_scale", jnp.ones, images.shape[-1:])
            x = images * scale.value[None, None, None, :]
        tensors = {INPUT: x}
        for layer in self.layers:
            tensors[layer.name] = self._run(layer, [tensors[i] for i in layer.inputs], train=train)
        return tensors[self.layers[-1].name]

    def _run(self, layer: Layer, inputs: list[jax.Array], *, train: bool) -> jax.Array:
        x = inputs[0]
        channels = layer.shape[-1]
        if layer.op == "conv":
            side, step = (layer.kernel,) * 2, (layer.stride,) * 2
            x = nn.Conv(
                channels, side, step, use_bias=layer.bias, name=layer.name,
                kernel_init=nn.initializers.he_normal(),
            )(x)  # fmt: skip
        elif layer.op == "dense":
            x = nn.Dense(channels, name=layer.name)(x)
        elif layer.op == "concat":
            x = jnp.concatenate(inputs, axis=-1)
        elif layer.op == "max_pool":
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        elif layer.op == "avg_pool":
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        elif layer.op == "global_pool":
            # A window over the whole map: TFLite gets AVERAGE_POOL_2D, from a mean it gets SUM.
            x = nn.avg_pool(x, x.shape[1:3])[:, 0, 0, :]
        if layer.norm:
            x = nn.BatchNorm(
                use_running_average=not train, momentum=BATCH_NORM_MOMENTUM,
                epsilon=BATCH_NORM_EPSILON, name=f"{layer.name}_bn",
            )(x)  # fmt: skip
        elif layer.op == "norm":
            x = Affine(name=f"{layer.name}_bn")(x)
        return activate(layer.activation, x)
