"""What a step may use: blobs, settings, a way to tell progress. Nothing of jobs, leases or HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitwright.core.errors import InvalidReference, NotFound
from bitwright.core.inventory import Inventory
from bitwright.jobs.blobs import BlobStore
from bitwright.models import ModelSource, inspect, locate, open_model
from bitwright.models.limits import Limits
from bitwright.settings import Settings

Progress = Callable[[str, float, str], None]


def silent(stage: str, fraction: float, message: str) -> None:
    """The progress callback of those who do not listen."""


@dataclass(frozen=True)
class Context:
    """allow_path: local mode may name plain directories and files; out_dir: where a checkpoint goes, if chosen;
    problem_out: where the problem that a plan answers goes, if wanted."""

    settings: Settings
    progress: Progress = silent
    allow_path: bool = False
    out_dir: Path | None = None
    problem_out: Path | None = None
    blobs: BlobStore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "blobs", BlobStore(self.settings.blob_dir))

    def local_folder(self, reference: str) -> Path:
        """A checkpoint folder: any local path in local mode, else only below this host's checkpoint folder."""
        folder = Path(reference)
        if not self.allow_path:
            folder = self.settings.checkpoint_dir / reference
            if folder.parent != self.settings.checkpoint_dir or folder.name in {"", ".", ".."}:
                raise InvalidReference(
                    "a server reads its own checkpoints only", expected="a name that a job returned", got=reference
                )
        if not folder.is_dir():
            raise NotFound("there is no such checkpoint folder", got=reference)
        return folder

    def for_model(self, inventory: Inventory) -> Context:
        """Alone where a model is so small that starting parts of its work takes longer than the work."""
        if inventory.weights >= self.settings.cut_weights:
            return self
        return replace(self, settings=self.settings.model_copy(update={"shards": 1}))

    @property
    def _limits(self) -> Limits:
        return Limits(header_bytes=self.settings.max_header_bytes, model_bytes=self.settings.max_model_bytes)

    def locate(self, reference: str) -> Path:
        """The file or folder behind a reference of the same kinds, read by who knows what it is."""
        return locate(reference, roots=self.settings.model_roots, allow_path=self.allow_path, limits=self._limits)

    def open(self, reference: str) -> tuple[ModelSource, Inventory]:
        """The model behind a reference and its inventory."""
        self.progress("inspect", 0.0, f"reading the headers of {reference}")
        source = open_model(reference, roots=self.settings.model_roots, allow_path=self.allow_path, limits=self._limits)
        inventory = inspect(source)
        self.progress("inspect", 1.0, f"{len(inventory.units)} units, {inventory.weights:,} weights")
        self.progress("coverage", 1.0, coverage_words(inventory))
        return source, inventory


def coverage_words(inventory: Inventory) -> str:
    """What stays unquantized, as shares of the stored bytes, largest first: said before any work is done."""
    coverage = inventory.coverage()
    rows = [f"{row['role']} {100 * row['share']:.1f}%" for row in coverage["unquantized"][:6]]
    kept = coverage["unquantized_bytes"]
    return f"{kept:,} bytes stay unquantized: {', '.join(rows)}" if rows else "everything is planned"
