"""One long array in an `.npz` beside a JSON document, which names it, its length and its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.canonical import atomic_write, digest_file
from bitwright.core.errors import InvalidPlan
from bitwright.core.npz import read_npz


def save_array(document: Path, name: str, array: NDArray[Any]) -> dict[str, Any]:
    """Write `array` beside `document` and return what stands for it there.

    The file is called after the document and the array (`solution.json` -> `solution.choice.npz`), never after the
    document alone: `problem.npz` often lies beside `problem.json`. The digest ties the two files to each other, so
    that a document of one run is never read with the array of another. Raises OutOfResources, InvalidInput.
    """
    path = document.with_name(f"{document.stem}.{name}.npz")
    with atomic_write(path) as file:
        # Not compressed: an array of one value packs beyond the ratio at which `read_npz` sees a bomb.
        np.savez(file, **{name: array})  # type: ignore[arg-type]
    return {"npz": path.name, "count": len(array), "digest": digest_file(path)}


def load_array(pointer: Any, name: str, folder: Path | None) -> NDArray[Any]:
    """The array that `pointer` stands for. Raises InvalidPlan, or InvalidProblem for a damaged archive."""
    file = pointer.get("npz") if isinstance(pointer, dict) else None
    if folder is None or not isinstance(file, str) or not file or Path(file).name != file or "\0" in file:
        raise InvalidPlan(
            f"the {name} lies in another file that cannot be named here",
            expected="the name of an .npz file in the same folder",
            got=repr(file)[:80],
        )
    path = folder / file
    if not path.is_file():
        raise InvalidPlan(
            f"the file with the {name} is missing", expected=f"{file} beside the document",
            hint="move both files together",
        )  # fmt: skip
    if pointer.get("digest", digest := digest_file(path)) != digest:
        raise InvalidPlan(
            f"{file} is not the file that this document was saved with",
            expected=str(pointer["digest"])[:80],
            got=digest,
            hint="solve or plan again: one of the two files was replaced or its writing was cut short",
        )
    array = read_npz(path).get(name)
    if array is None or array.ndim != 1:
        raise InvalidPlan(f"{file} does not hold the {name}", expected=f"an array '{name}' of one dimension")
    if pointer.get("count", len(array)) != len(array):
        raise InvalidPlan(
            f"{file} holds another number of {name}", expected=str(pointer["count"])[:40], got=str(len(array))
        )
    return array
