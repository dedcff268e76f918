"""ModelSource: an opened model as data: config, tensors, digest, and reads. `open_model` makes one from a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import digest_json
from bitwright.core.errors import InvalidModel, InvalidReference
from bitwright.core.refs import FileRef, HubRef, PathRef, parse_ref
from bitwright.models import hub
from bitwright.models.config import CONFIG_NAME, read_config
from bitwright.models.digest import file_digest, files_digest
from bitwright.models.files import names_in, resolve
from bitwright.models.gguf_model import is_gguf, unpack_gguf
from bitwright.models.layout import is_sentence_transformers, weights_folder
from bitwright.models.limits import DEFAULT_LIMITS, Limits
from bitwright.models.safetensors_header import TensorInfo
from bitwright.models.shards import WeightFile, read_weights
from bitwright.models.weights import read_raw, to_float32

TOKENIZER_FILES = frozenset({
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "preprocessor_config.json",
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A model folder whose headers were read and checked.

    ref: the reference, with a hub revision pinned to its commit. path: the folder of config and weights.
    tensors: by name, in file order. beneath: the folder that no file may lead out of, or None (a plain path).
    """

    ref: str
    path: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    files: tuple[WeightFile, ...]
    beneath: Path | None = None
    sentence_transformers: bool = False
    limits: Limits = field(default=DEFAULT_LIMITS, repr=False)

    @cached_property
    def digest(self) -> str:
        """Content digest of config and weights; reads every byte once, then remembers (models/digest.py)."""
        return files_digest(self.path / CONFIG_NAME, [file.path for file in self.files], beneath=self.beneath)

    @cached_property
    def tokenizer_digest(self) -> str:
        """Content digest of the tokenizer's or image processor's files: the part of calibration the model decides."""
        names = [name for name in names_in(self.path, self.limits.directory_entries) if name in TOKENIZER_FILES]
        return digest_json({name: file_digest(self.path / name, beneath=self.beneath) for name in names})

    @property
    def file_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def header_bytes(self) -> int:
        """Bytes of the weight files that are not tensors."""
        return sum(file.header_bytes for file in self.files)

    def info(self, name: str) -> TensorInfo:
        """Raises InvalidModel for a tensor the model does not have."""
        found = self.tensors.get(name)
        if found is None:
            raise InvalidModel("the model has no such tensor", expected="a name of its header", got=name[:200])
        return found

    def read(self, name: str, index: int | None = None, rows: tuple[int, int] | None = None) -> NDArray[Any]:
        """The tensor (or matrix `index` of a stacked one) in its raw dtype; BF16 as uint16, 8-bit floats as uint8.

        rows: first and last but one, for a part of it.
        """
        return read_raw(self.info(name), index, rows, beneath=self.beneath)

    def read_float32(self, name: str, index: int | None = None) -> NDArray[np.float32]:
        """The tensor (or matrix `index` of a stacked one) as float32."""
        info = self.info(name)
        return to_float32(read_raw(info, index, beneath=self.beneath), info.dtype)


def open_model(
    ref: str,
    *,
    roots: Mapping[str, Path] | None = None,
    allow_path: bool = True,
    offline: bool | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> ModelSource:
    """Open a model by reference: read config and headers, check everything, load no weight.

    roots: folders that `file:ROOT/...` may name. allow_path=False refuses bare paths (a server). offline=None follows
    HF_HUB_OFFLINE. Raises InvalidReference, InvalidModel, UnsafeFormat, Temporary.
    """
    parsed = parse_ref(str(ref), allow_path=allow_path)
    name, folder, beneath = _locate(parsed, roots or {}, offline, limits)
    if is_gguf(folder):
        folder, beneath = unpack_gguf(folder, beneath=beneath, limits=limits), None
    folder = weights_folder(folder, beneath, limits)
    config = read_config(folder, beneath=beneath, limits=limits)
    weights = read_weights(folder, beneath=beneath, limits=limits)
    total = sum(file.bytes for file in weights.files)
    if total > limits.model_bytes:
        raise InvalidModel(
            "the model is too large", expected=f"weight files of at most {limits.model_bytes} bytes",
            got=f"{total} bytes", hint="raise BITWRIGHT_MAX_MODEL_BYTES",
        )  # fmt: skip
    pooled = is_sentence_transformers(folder)
    return ModelSource(name, folder, config, weights.tensors, weights.files, beneath, pooled, limits)


def locate(
    ref: str,
    *,
    roots: Mapping[str, Path],
    allow_path: bool,
    offline: bool | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """The file or folder behind a reference, which need not be a model. No entry of the folder leads out of its root.

    Raises as `open_model`.
    """
    _, path, beneath = _locate(parse_ref(ref, allow_path=allow_path), roots, offline, limits)
    if path.is_dir():
        for name in names_in(path, limits.directory_entries):
            resolve(path / name, beneath)
    return path


def _locate(
    ref: PathRef | FileRef | HubRef, roots: Mapping[str, Path], offline: bool | None, limits: Limits
) -> tuple[str, Path, Path | None]:
    """(reference to record, folder, folder not to leave)."""
    if isinstance(ref, HubRef):
        found = hub.fetch(ref, offline=offline, limits=limits)
        return found.ref, found.path, found.beneath
    if isinstance(ref, PathRef):
        return str(ref), resolve(Path(ref.path).expanduser(), None), None
    root = roots.get(ref.root)
    if root is None:
        known = ", ".join(sorted(roots)) or "none is configured"
        raise InvalidReference(
            f"there is no model root '{ref.root}'",
            expected=f"one of: {known}",
            got=str(ref)[:200],
            hint="set BITWRIGHT_MODEL_ROOTS",
        )
    beneath = resolve(Path(root), None)
    return str(ref), resolve(beneath.joinpath(*ref.relative), beneath), beneath
