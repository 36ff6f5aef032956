"""A model put back as it was loaded, after a method changed it in place: quicker than to load it again."""

from __future__ import annotations

from typing import Any

from harness.run.changes import ModelState

# Copies are kept where so many times their size is free: the cells of a sweep train beside them.
ROOM = 4


class Original:
    """What a model was when it was loaded: its tensors, in copies where there is room for them, and its modules.

    Args:
        model: as loaded.
    """

    def __init__(self, model: Any) -> None:
        self._model, self.state = model, ModelState.of(model)
        self._modules = [] if model is None else [_Module(module) for module in model.modules()]
        self._copies: dict[Any, Any] = {}
        tensors = {id(tensor): tensor for module in self._modules for tensor in module.tensors()}
        if tensors and ROOM * sum(t.numel() * t.element_size() for t in tensors.values()) < _free_memory():
            self._copies = {key: tensor.detach().to("cpu", copy=True) for key, tensor in tensors.items()}

    def put_back(self) -> bool:
        """Put back modules, flags and tensors, and return whether the model is as it was: if not, it has to be loaded again."""
        if self._model is None or self._is_as_it_was():
            return True
        for module in self._modules:
            module.put_back()
        vars(self._model).pop("peft_config", None)  # which PEFT leaves on what it was taken off
        if self._is_as_it_was():
            return True
        for module in self._modules:
            module.fill(self._copies)
        return bool(self._copies) and self._is_as_it_was()

    def _is_as_it_was(self) -> bool:
        return ModelState.of(self._model) == self.state


class _Module:
    """A module's own parts: those below it, its tensors with where their numbers lie, its plain values."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._children = dict(module._modules)
        self._named = {part: dict(getattr(module, part)) for part in ("_parameters", "_buffers")}
        self._data = [(t, t.data, t.requires_grad) for t in self.tensors()]
        self._is_training = module.training

    def tensors(self) -> list[Any]:
        return [tensor for named in self._named.values() for tensor in named.values() if tensor is not None]

    def put_back(self) -> None:
        self._module._modules.clear()
        self._module._modules.update(self._children)
        for part, named in self._named.items():
            getattr(self._module, part).clear()
            getattr(self._module, part).update(named)
        for tensor, data, takes_gradients in self._data:
            tensor.data, tensor.grad = data, None
            tensor.requires_grad_(takes_gradients)
        self._module.training = self._is_training

    def fill(self, copies: dict[Any, Any]) -> None:
        import torch

        with torch.no_grad():
            for tensor, _, _ in self._data:
                if id(tensor) in copies:
                    tensor.data.copy_(copies[id(tensor)])


def _free_memory() -> int:
    import torch

    from harness.methods.training_memory import free_bytes

    return free_bytes(torch.device("cpu")) or 0
