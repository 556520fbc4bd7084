"""A low-rank adapter on a base model: PEFT's layers, with one flat float32 master copy of all their weights.

The layers compute in the base's precision; the optimiser works on the master, which is what checkpoints hold and what
is exported. One flat tensor makes the optimiser step, the snapshot and the restore single operations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from atoll.core.errors import Invalid
from atoll.training.engine.model import Base

PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one matrix lies in the master: [start, start + rows x columns)."""

    name: str
    start: int
    shape: tuple[int, int]

    @property
    def stop(self) -> int:
        return self.start + self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """Rank, scale and the layers of an adapter."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


class Adapter:
    """The adapter of a base model. `master` is float32 [parameters]; its gradient is gathered in `master.grad`."""

    def __init__(self, base: Base, shape: AdapterShape, seed: int) -> None:
        torch.manual_seed(seed)
        self.shape = shape
        self.config = LoraConfig(
            r=shape.rank,
            lora_alpha=shape.alpha,
            target_modules=sorted(shape.targets),
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
        self._peft = _with_layers(base, self.config)
        self._layers = dict(_weights(self._peft))
        self.slices = tuple(_slices(self._layers))
        self.master = torch.cat([p.detach().float().flatten() for p in self._layers.values()]).requires_grad_()
        self.master.grad = torch.zeros_like(self.master)
        for parameter in self._layers.values():
            parameter.data = parameter.data.to(base.dtype)

    def publish(self) -> None:
        """Make the layers compute with the master's present values."""
        with torch.no_grad():
            for cut in self.slices:
                self._layers[cut.name].copy_(self.master[cut.start : cut.stop].view(cut.shape))

    def gather_gradient(self) -> None:
        """Add the layers' gradients to the master's and clear them."""
        assert self.master.grad is not None
        for cut in self.slices:
            parameter = self._layers[cut.name]
            if parameter.grad is not None:
                self.master.grad[cut.start : cut.stop] += parameter.grad.flatten()
                parameter.grad = None

    def disabled(self) -> AbstractContextManager[None]:
        """Inside, the model computes as its base does."""
        context: AbstractContextManager[None] = self._peft.disable_adapter()
        return context

    def matrices(self) -> dict[str, torch.Tensor]:
        """The master's matrices by their names in a PEFT file."""
        flat = self.master.detach()
        return {cut.name: flat[cut.start : cut.stop].view(cut.shape) for cut in self.slices}

    def load(self, matrices: dict[str, torch.Tensor]) -> None:
        """Take over the matrices of another adapter; Invalid when it was made for another base model."""
        wanted = {cut.name: cut.shape for cut in self.slices}
        strange = next((n for n, m in matrices.items() if wanted.get(n) != tuple(m.shape)), None)
        missing = next((n for n in wanted if n not in matrices), None)
        if strange or missing:
            what = f"has {strange} of another shape" if strange else f"lacks {missing}"
            raise Invalid(f"the adapter {what}", field="adapter", hint="it belongs to another base model")
        with torch.no_grad():
            for cut in self.slices:
                self.master[cut.start : cut.stop] = matrices[cut.name].flatten()
        self.publish()


def _with_layers(base: Base, config: LoraConfig) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for attributes that were renamed
        return get_peft_model(base.causal, config, autocast_adapter_dtype=True)


def _weights(peft: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The adapter's parameters by their names in a PEFT file (which leaves out the adapter's own name)."""
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad:
            yield name.replace(".default.weight", ".weight"), parameter


def _slices(layers: dict[str, torch.nn.Parameter]) -> Iterator[Slice]:
    start = 0
    for name, parameter in layers.items():
        rows, columns = parameter.shape
        yield Slice(name, start, (rows, columns))
        start += rows * columns


def peft_config(adapter: Adapter) -> dict[str, Any]:
    """adapter_config.json as PEFT writes it, in an order of its own so that equal adapters are equal bytes."""
    value = adapter.config.to_dict() | {"inference_mode": True, "base_model_name_or_path": None}
    return {key: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for key, v in sorted(value.items())}
