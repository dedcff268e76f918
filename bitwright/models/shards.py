"""Which files hold a model's weights, and the tensors in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bitwright.core.errors import InvalidModel, UnsafeFormat
from bitwright.models.files import names_in, open_regular, read_bounded
from bitwright.models.limits import DEFAULT_LIMITS, Limits
from bitwright.models.safetensors_header import TensorInfo, read_header
from bitwright.models.strict_json import parse_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: What to do with pickled weights.
CONVERT = "where you trust them, load them with transformers and model.save_pretrained(DIR): it writes safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file: its size and the bytes before its data."""

    path: Path
    bytes: int
    header_bytes: int


@dataclass(frozen=True)
class Weights:
    """Files in name order; tensors in file order."""

    files: tuple[WeightFile, ...]
    tensors: Mapping[str, TensorInfo]


def read_weights(folder: Path, *, beneath: Path | None = None, limits: Limits = DEFAULT_LIMITS) -> Weights:
    """Headers of all weight files of a model folder. Raises InvalidModel or UnsafeFormat."""
    names = names_in(folder, limits.directory_entries)
    if SINGLE in names:
        return _read_files(folder, (SINGLE,), beneath, limits)
    if INDEX not in names:
        refuse(folder, names)
    index = _read_index(folder, beneath, limits)
    shards = tuple(sorted(set(index.values())))
    missing = [shard for shard in shards if shard not in names]
    if missing:
        raise InvalidModel(
            f"{len(missing)} of {len(shards)} weight files are missing",
            expected=f"every file that {INDEX} names",
            got=f"no {', '.join(missing[:20])}",
            hint="finish the download; the files must lie beside the index",
            missing=missing[:1000],
        )
    weights = _read_files(folder, shards, beneath, limits)
    _check_index(index, weights)
    return weights


def refuse(folder: Path, names: tuple[str, ...]) -> NoReturn:
    """Raise the error that explains why a folder without usable weights is no model."""
    pickled = [name for name in names if name.endswith(PICKLED)]
    parts = [name for name in names if name.endswith(".safetensors")]
    expected = f"{SINGLE}, or {INDEX} with its shards"
    if parts:
        raise InvalidModel(
            "the folder has no index for its weight files",
            expected=expected,
            got=", ".join(parts[:5]),
            hint=_hint(parts),
        )
    if pickled:
        raise UnsafeFormat(
            "the weights are pickled, and unpickling a file can run any program it holds",
            expected=expected,
            got=", ".join(pickled[:5]),
            hint=CONVERT,
        )
    got = "an empty folder" if not names else f"{len(names)} files, none of them safetensors"
    raise InvalidModel(
        f"{folder.name or folder} holds no weights",
        expected=expected,
        got=got,
        hint="give the folder of a Hugging Face model",
    )


def _hint(parts: list[str]) -> str:
    if any(name.startswith("adapter") for name in parts):
        return "this is an adapter: merge it into its base model first (peft: merge_and_unload, then save_pretrained)"
    return "save the model with transformers' save_pretrained, which names the files and writes the index"


def _read_index(folder: Path, beneath: Path | None, limits: Limits) -> dict[str, str]:
    data = read_bounded(folder / INDEX, limits.index_bytes, beneath)
    index = parse_object(data, what=INDEX, containers=1024).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise InvalidModel(
            f"{INDEX} has no weight_map", expected="tensor names and file names", got=type(index).__name__
        )
    for tensor, name in index.items():
        plain = (
            isinstance(name, str) and name.isprintable() and Path(name).name == name and name.endswith(".safetensors")
        )
        if not plain:
            raise InvalidModel(
                f"{INDEX} names a bad file",
                expected="the name of a .safetensors file beside it",
                got=f"{ascii(name)[:80]} for {ascii(tensor)[:80]}",
            )
    if len(set(index.values())) > limits.shards:
        raise InvalidModel(
            f"{INDEX} names too many files", expected=f"at most {limits.shards}", got=str(len(set(index.values())))
        )
    return index


def _read_files(folder: Path, names: tuple[str, ...], beneath: Path | None, limits: Limits) -> Weights:
    files: list[WeightFile] = []
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        path = folder / name
        with open_regular(path, beneath) as file:
            size = os.fstat(file.fileno()).st_size
            header = read_header(file, path, size, limits)
        files.append(WeightFile(path, size, header.size))
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise InvalidModel("a tensor stands in two weight files", expected="each once", got=tensor.name[:200])
            tensors[tensor.name] = tensor
        if len(tensors) > limits.tensors:
            raise InvalidModel(
                "the model has too many tensors", expected=f"at most {limits.tensors}", got=f"{len(tensors)} or more"
            )
    total = sum(file.bytes for file in files)
    if total > limits.model_bytes:
        raise InvalidModel(
            "the model is too large", expected=f"at most {limits.model_bytes} bytes", got=f"{total} bytes"
        )
    if not tensors:
        raise InvalidModel("the weight files hold no tensor", expected="at least one", got="none")
    return Weights(tuple(files), tensors)


def _check_index(index: Mapping[str, str], weights: Weights) -> None:
    """Index and files must agree both ways: neither may know a tensor that the other does not."""
    for name, file in index.items():
        found = weights.tensors.get(name)
        if found is None or found.path_name != file:
            got = "in no file" if found is None else f"in {found.path_name}"
            raise InvalidModel(
                "a tensor is not where the index says",
                expected=f"{name[:200]} in {file}",
                got=got,
                hint="save the model again",
            )
    extra = [name for name in weights.tensors if name not in index]
    if extra:
        raise InvalidModel(
            "the weight files hold tensors that the index does not name",
            expected="every tensor in the index",
            got=", ".join(extra[:3])[:200],
            hint="save the model again",
        )
