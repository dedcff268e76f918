"""Models as data: references opened, headers read within limits, tensors named, sized and classified. Never torch."""

from bitwright.models.inspection import inspect
from bitwright.models.safetensors_header import TensorInfo
from bitwright.models.source import ModelSource, locate, open_model
from bitwright.models.weights import check_finite, check_stored

__all__ = ["ModelSource", "TensorInfo", "check_finite", "check_stored", "inspect", "locate", "open_model"]
