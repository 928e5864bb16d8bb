"""Types of methods' inputs and outputs, as far as models tell them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mindserve.control import ReadyMethod, TensorType
from mindserve.register.values import METHOD_INPUT, Method, Model, ValueRef

if TYPE_CHECKING:
    from mindserve._native import Runtime


class TensorTypes:
    """Knows of methods' inputs and outputs that are a model's what the model says of them.

    Args:
        runtime: has the models.
        models: with their numbers there.
    """

    def __init__(self, runtime: Runtime, models: Mapping[Model, int]) -> None:
        self._inputs = {model: runtime.model_inputs(number) for model, number in models.items()}
        self._outputs = {model: runtime.model_outputs(number) for model, number in models.items()}

    def describe(self, method: Method) -> ReadyMethod:
        """The method, with what is known of its types."""
        inputs: list[TensorType | None] = [None] * len(method.inputs)
        for stage in method.stages:
            if not isinstance(stage.target, Model):
                continue
            for number, (ref, (_, name, shape)) in enumerate(
                zip(stage.inputs, self._inputs[stage.target], strict=True)
            ):
                if ref.stage == METHOD_INPUT:
                    batched = number not in stage.target.without_batch_dim_inputs
                    inputs[ref.index] = _of_instance(stage.target, name, shape, batched)
        outputs = [self._output(method, ref) for ref in method.results]
        return ReadyMethod(method.name, method.idempotent, method.inputs, method.outputs, tuple(inputs), tuple(outputs))

    def _output(self, method: Method, ref: ValueRef) -> TensorType | None:
        target = None if ref.stage == METHOD_INPUT else method.stages[ref.stage].target
        if not isinstance(target, Model):
            return None
        _, name, shape = self._outputs[target][ref.index]
        return _of_instance(target, name, shape, True)


def _of_instance(model: Model, name: str, shape: Sequence[int], batched: bool) -> TensorType:
    """A model's input or output as an instance has it, without the batch's dimension."""
    return TensorType(name, tuple(shape[1:] if model.with_batch_dim and batched else shape))
