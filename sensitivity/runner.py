"""Loads a model through transformers, offline and from safetensors only, and runs batches of data through it.

Everything is float32, on the computing device (on_device.py). Nothing of the model's folder is executed
(`trust_remote_code=False`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bitwright.core.errors import InvalidModel, NotFinite, OutOfResources, Unsupported
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.data import Data
from sensitivity.heads import Head, head_for
from sensitivity.memory import TIGHT, ran_out
from sensitivity.on_device import all_finite, computing
from sensitivity.quiet import quiet
from sensitivity.tied_head import check_tied_head
from sensitivity.units_map import Changed, Slice, map_units, put


@dataclass(frozen=True, eq=False)
class Runner:
    """A loaded model: `slices` says where each unit lies, `head` what its output means."""

    source: ModelSource
    inventory: Inventory
    model: torch.nn.Module
    head: Head
    slices: Mapping[str, Slice]
    warnings: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.model.named_parameters())

    def output(self, data: Data) -> torch.Tensor:
        """The head's output for a batch: logits (items, positions, classes), (items, classes), or embeddings.

        Raises NotFinite when it holds NaN or infinity, OutOfResources when memory runs out.
        """
        with running():
            result = self.head.output(self.model, data)
        check_output(result)
        return result

    @contextmanager
    def replaced(self, weights: Mapping[str, Changed]) -> Iterator[None]:
        """The model with the weights of some units (by unit name) replaced, and biases that come with them; put back
        at the end.
        """
        parameters = self.parameters
        places = {name: self.slices[name] for name in weights}
        views = [place.view(parameters) for place in places.values()]
        views += [places[name].bias_view(parameters) for name, one in weights.items() if isinstance(one, tuple)]
        kept = [view.clone() for view in views]
        try:
            for name, place in places.items():
                put(place.view(parameters), partial(place.bias_view, parameters), weights[name])
            yield
        finally:
            for view, before in zip(views, kept, strict=True):
                view.copy_(before)


def check_output(output: torch.Tensor) -> None:
    """Raises NotFinite for a head's output that holds NaN or infinity."""
    if not all_finite(output.detach()):
        raise NotFinite(
            "the model's forward pass gave NaN or infinity",
            expected=f"finite outputs in {str(output.dtype).removeprefix('torch.')}",
            got=f"{int((~torch.isfinite(output.detach())).sum())} of {output.numel()} outputs not finite",
            hint="the checkpoint is damaged, or the calibration data is not what the model was made for",
        )


@contextmanager
def running() -> Iterator[None]:
    """What goes wrong inside a model, as an error of this project. Raises OutOfResources, Unsupported."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if ran_out(error):
            raise OutOfResources("memory ran out while running the model", hint=TIGHT) from error
        raise Unsupported("the model cannot be run on this data", got=str(error)[:300]) from error


def load_runner(source: ModelSource, inventory: Inventory) -> Runner:
    """Loads the model behind `source`. Raises InvalidModel, Unsupported, OutOfResources."""
    head = head_for(inventory.task)
    folder = model_folder(source)
    check_tied_head(source, inventory)
    quiet()
    model, warnings = _load(folder, head)
    model.eval()
    model.requires_grad_(False)
    slices = map_units(source, inventory, dict(model.named_parameters()))
    return Runner(source, inventory, _on_device(model), head, slices, warnings)


def _on_device(model: torch.nn.Module) -> torch.nn.Module:
    """Raises OutOfResources."""
    device = computing()
    if device.type == "cpu":
        return model
    try:
        model.to(device)
    except RuntimeError as error:
        if ran_out(error):
            raise OutOfResources(f"the model does not fit on {device}", got=str(error)[:200], hint=TIGHT) from error
        raise
    model.tie_weights()  # type: ignore[operator]  # what moves may part from what it was tied to
    return model


def model_folder(source: ModelSource) -> Path:
    """The directory with config.json. Raises InvalidModel for a bare file."""
    folder = source.path if source.path.is_dir() else source.path.parent
    if not (folder / "config.json").is_file():
        raise InvalidModel(
            "running a model needs its config.json",
            expected="a Hugging Face model directory",
            got=f"no config.json beside {source.path.name}",
            hint="use a metric without data (--metric weight-mse), or give the whole directory",
        )
    return folder


def _load(folder: Path, head: Head) -> tuple[torch.nn.Module, tuple[str, ...]]:
    import transformers

    auto = getattr(transformers, head.auto_class)
    try:
        # Eager experts call one linear for each expert, which is what the capture listens to.
        model, report = auto.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            experts_implementation="eager", output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, MemoryError) as error:
        if ran_out(error):
            raise OutOfResources("the model does not fit in memory", got=str(error)[:200], hint=TIGHT) from error
        raise Unsupported(
            "transformers cannot load this model without running its own code",
            expected="an architecture that transformers knows, with safetensors weights",
            got=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
            hint="check the directory, or use a metric without data (--metric weight-mse)",
        ) from error
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    used = [key for key in missing if "pooler" not in key or head.uses_pooler]
    if used:
        raise InvalidModel(
            "the files lack weights that the model needs",
            expected="every weight of the architecture",
            got=f"{len(used)} missing, first {used[0]}",
            hint="get the whole checkpoint; a head that was never trained cannot be measured",
        )
    return model, tuple(f"not in the files and not used: {key}" for key in missing)
