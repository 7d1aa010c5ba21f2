"""BatchNormalization whose running variance is PyTorch's."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="translator")
class ExactBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """`torch.nn.BatchNorm*d` in training: the running variance takes the unbiased variance of the batch.

    PyTorch normalises by the biased variance (divided by n) and stores the unbiased one (divided by n − 1); Keras
    stores the biased one. `momentum` is Keras': the share of the old value that is kept, 1 − PyTorch's; None keeps
    the plain average of all batches, as PyTorch's None does.
    """

    def __init__(self, axis: int = -1, momentum: float | None = 0.9, epsilon: float = 1e-5, **kwargs: Any) -> None:
        if kwargs.pop("renorm", False) or kwargs.get("synchronized"):
            raise ValueError("ExactBatchNormalization has neither renorm nor synchronized")
        for unused in ("renorm_clipping", "renorm_momentum"):
            kwargs.pop(unused, None)
        super().__init__(axis=axis, momentum=0.0 if momentum is None else momentum, epsilon=epsilon, **kwargs)
        self.cumulative = momentum is None

    def build(self, input_shape: Any) -> None:
        """Add the number of batches seen, where the average is cumulative."""
        super().build(input_shape)
        if self.cumulative:
            self.batches = self.add_weight(
                shape=(), name="batches", initializer="zeros", trainable=False, autocast=False, dtype="int32"
            )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the batch and take it into the statistics in training; by the statistics otherwise."""
        if mask is not None:
            raise ValueError("ExactBatchNormalization: PyTorch's BatchNorm knows no mask")
        if not (training and self.trainable):
            return super().call(inputs, training=training)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = ops.moments(x, axes=self._reduction_axes)
        self._take_in(x, mean, variance)
        result = ops.batch_normalization(
            x,
            mean=mean,
            variance=variance,
            axis=self.axis,
            offset=None if self.beta is None else ops.cast(self.beta, x.dtype),
            scale=None if self.gamma is None else ops.cast(self.gamma, x.dtype),
            epsilon=self.epsilon,
        )
        return ops.cast(result, self.compute_dtype)

    def _take_in(self, x: Any, mean: Any, variance: Any) -> None:
        """Move the statistics: the mean by the batch's, the variance by the batch's · n/(n − 1).

        One value per channel has no unbiased variance: PyTorch raises, here it becomes NaN.
        """
        sizes = [ops.shape(x)[axis] for axis in self._reduction_axes]
        n = ops.cast(ops.prod(ops.convert_to_tensor(sizes, "int32")), x.dtype)
        old_mean, old_variance = ops.cast(self.moving_mean, x.dtype), ops.cast(self.moving_variance, x.dtype)
        if self.cumulative:
            self.batches.assign(self.batches + 1)
            new = 1.0 / ops.cast(self.batches, x.dtype)
            keep = 1.0 - new
        else:
            keep, new = self.momentum, 1.0 - self.momentum
        self.moving_mean.assign(old_mean * keep + mean * new)
        self.moving_variance.assign(old_variance * keep + variance * (n / (n - 1.0)) * new)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = super().get_config()
        for unused in ("renorm", "renorm_clipping", "renorm_momentum"):
            config.pop(unused, None)
        return {**config, "momentum": None if self.cumulative else self.momentum}
