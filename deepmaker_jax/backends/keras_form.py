"""A folded network in Keras, which is what hls4ml reads."""

from typing import Any

import numpy as np

from deepmaker_jax.arch import INPUT, Layer


def to_keras(
    network: tuple[Layer, ...], weights: dict[str, Any], input_shape: tuple[int, int, int]
) -> Any:
    """Returns a Keras model from "image" to "logits" with the network's weights.

    Concatenations are chains of pairs: hls4ml's take two streams. A layer and
    its activation are two Keras layers, so that each has a type of its own.

    Args:
      network: folded layers with relu, or without activation.
      weights: their parameters, by layer.
      input_shape: (h, w, c).
    """
    import keras

    image = keras.Input(input_shape, name="image")
    tensors = {INPUT: image}
    for layer in network:
        inputs = [tensors[name] for name in layer.inputs]
        x = _layer(keras, layer, inputs)
        if layer.activation:
            x = keras.layers.Activation(layer.activation, name=f"{layer.name}_{layer.activation}")(
                x
            )
        tensors[layer.name] = x
    model = keras.Model(image, tensors[network[-1].name])
    for layer in network:
        if layer.name in weights:
            own = weights[layer.name]
            values = [np.asarray(own[k], np.float32) for k in ("kernel", "bias") if k in own]
            model.get_layer(layer.name).set_weights(values)
    return model


def _layer(keras: Any, layer: Layer, inputs: list[Any]) -> Any:
    kinds, name = keras.layers, layer.name
    if layer.op == "conv":
        side = layer.kernel
        return kinds.Conv2D(
            layer.shape[-1], side, strides=layer.stride, padding="same", use_bias=layer.bias,
            name=name,
        )(inputs[0])  # fmt: skip
    if layer.op == "dense":
        return kinds.Dense(layer.shape[-1], use_bias=layer.bias, name=name)(inputs[0])
    if layer.op == "concat":
        x = inputs[0]
        for i, other in enumerate(inputs[1:], 1):
            last = i == len(inputs) - 1
            x = kinds.Concatenate(name=name if last else f"{name}_part{i}")([x, other])
        return x
    if layer.op == "global_pool":
        return kinds.GlobalAveragePooling2D(name=name)(inputs[0])
    pool = {"max_pool": kinds.MaxPooling2D, "avg_pool": kinds.AveragePooling2D}[layer.op]
    return pool(2, name=name)(inputs[0])
