"""What the stages of scoring and planning share: what was asked, of which model, on which data, by which quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from bitwright.core.inventory import Inventory
from bitwright.core.requests import Scoring
from bitwright.core.table import SensitivityTable
from bitwright.models import ModelSource
from sensitivity import calibration as calibrations
from sensitivity.catalog import METRICS
from sensitivity.data import Calibration
from sensitivity.partial import FORGETFUL, Partial
from sensitivity.scoring import score
from sensitivity.share import ALONE, Share
from worker.steps.context import Context
from worker.steps.menu import Menu, resolve
from worker.steps.quantizing import Maker, make_quantizer, reads_data
from worker.steps.texts import locate_text

Asked = TypeVar("Asked", bound=Scoring, covariant=True)
Request = TypeVar("Request", bound=Scoring)


@dataclass(frozen=True, eq=False)
class Opened(Generic[Asked]):
    """What headers alone tell. inventory: of the units that are looked at."""

    request: Asked
    menu: Menu
    source: ModelSource
    inventory: Inventory
    context: Context


@dataclass(frozen=True, eq=False)
class Study(Opened[Asked]):
    """With data: calibration is None when nothing needs any."""

    calibration: Calibration | None
    maker: Maker


def open_model(request: Request, context: Context) -> Opened[Request]:
    """Headers and menu: a moment's work."""
    source, inventory = context.open(request.model)
    return Opened(request, resolve(request, inventory), source, inventory, context.for_model(inventory))


def study_of(found: Opened[Request]) -> Study[Request]:
    """Everything that is read before the first score: calibration data, and input moments where codes need them."""
    menu, source, inventory, context = found.menu, found.source, found.inventory, found.context
    calibration = _calibrate(found.request, menu, source, inventory, context)
    maker = make_quantizer(menu.quantizer, source, inventory, calibration, context, menu.quantizer_options)
    return Study(found.request, menu, source, inventory, context, calibration, maker)


def open_study(request: Request, context: Context) -> Study[Request]:
    return study_of(open_model(request, context))


def _calibrate(
    request: Scoring, menu: Menu, source: ModelSource, inventory: Inventory, context: Context
) -> Calibration | None:
    """Calibration data split into scoring and confirming parts; None when nothing needs any."""
    confirming = request.confirming_tokens if inventory.task != "unknown" else 0
    quantizing = reads_data(menu.quantizer) and inventory.task != "unknown"
    if METRICS.get(menu.metric).traits["data"] == "none" and not confirming and not quantizing:
        return None
    context.progress("calibrate", 0.0, "reading calibration data")
    calibration = calibrations.load(
        locate_text(request.calibration, context),
        source,
        inventory,
        scoring_tokens=request.calibration_tokens,
        confirming_tokens=confirming or request.calibration_tokens,
        seed=request.seed,
    )
    context.progress("calibrate", 1.0, calibration.description)
    return calibration


def compute(
    study: Study[Scoring], *, share: Share = ALONE, partial: Partial = FORGETFUL, target: float | None = None
) -> SensitivityTable:
    """The table of the study's units and formats, computed here and now."""
    return score(
        study.source,
        study.inventory,
        study.menu.formats,
        metric=study.menu.metric,
        calibration=study.calibration,
        quantizer=study.maker,
        seed=study.request.seed,
        samples=study.request.samples,
        options=dict(study.menu.recipe.metric_options),
        progress=study.context.progress,
        partial=partial,
        granularity=study.menu.granularity,
        share=share,
        target=target,
    )
