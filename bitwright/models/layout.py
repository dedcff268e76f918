"""Where a folder keeps its transformer: in itself, in a part that modules.json names, or in `model/` of a package."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from bitwright.core.errors import InvalidModel, InvalidReference, UnsafeFormat
from bitwright.models.config import CONFIG_NAME
from bitwright.models.files import names_in, read_bounded, resolve
from bitwright.models.limits import Limits
from bitwright.models.shards import CONVERT, INDEX, PICKLED, SINGLE, refuse
from bitwright.models.strict_json import parse_value

MODULES = "modules.json"


def weights_folder(folder: Path, beneath: Path | None, limits: Limits) -> Path:
    """The folder that holds config.json and weights. Raises InvalidModel or UnsafeFormat, saying what is missing."""
    if folder.is_file():
        _refuse_file(folder)
    if not folder.is_dir():
        raise InvalidModel(
            "the model is not a folder", expected="a folder with config.json and safetensors", got=str(folder)
        )
    if (folder / CONFIG_NAME).is_file():
        return folder
    for part in (*_module_parts(folder, beneath, limits), "model"):
        inner = folder / part
        if (inner / CONFIG_NAME).is_file():
            return resolve(inner, beneath)
    _refuse_folder(folder, limits)


def _module_parts(folder: Path, beneath: Path | None, limits: Limits) -> tuple[str, ...]:
    """Sub-folders of sentence-transformers' modules.json, whose first module is the transformer (`0_Transformer`)."""
    if not (folder / MODULES).is_file():
        return ()
    data = read_bounded(folder / MODULES, limits.config_bytes, beneath)
    rows = parse_value(data, what=MODULES, containers=10_000)
    paths = [row.get("path") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    plain = [path for path in paths if isinstance(path, str) and path and Path(path).name == path and path != ".."]
    if any(isinstance(path, str) and ".." in Path(path).parts for path in paths):
        raise InvalidReference(
            f"{MODULES} leads out of the folder", expected="names of sub-folders", got=ascii(paths)[:200]
        )
    return tuple(plain)


def is_sentence_transformers(folder: Path) -> bool:
    return (folder / MODULES).is_file() or (folder.parent / MODULES).is_file()


def _refuse_file(path: Path) -> NoReturn:
    if path.suffix in PICKLED:
        raise UnsafeFormat(
            "pickled weights are not read: unpickling a file can run any program it holds",
            expected="a folder with safetensors weights",
            got=path.name,
            hint=CONVERT,
        )
    hint = (
        f"give its folder: {path.parent}"
        if path.suffix == ".safetensors"
        else "give the folder of a Hugging Face model"
    )
    raise InvalidModel(
        "a file was given where a folder is meant",
        expected="a folder with config.json and safetensors",
        got=path.name,
        hint=hint,
    )


def _refuse_folder(folder: Path, limits: Limits) -> NoReturn:
    names = names_in(folder, limits.directory_entries)
    if SINGLE in names or INDEX in names:
        raise InvalidModel(
            "the folder has weights but no config.json",
            expected=CONFIG_NAME,
            got=", ".join(names[:8]),
            hint="copy config.json beside the weights",
        )
    inner = [name for name in names if (folder / name / CONFIG_NAME).is_file()]
    if inner:
        raise InvalidModel(
            "the folder is no model, but holds some",
            expected=CONFIG_NAME,
            got=", ".join(inner[:8]),
            hint=f"name one of them, such as {inner[0]}",
        )
    refuse(folder, names)
