"""What the sidecars of all imported images have in common."""

import datetime
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from theraflow.dicom.export.choice import Choice
from theraflow.dicom.export.header import text
from theraflow.dicom.export.identity import without_identity
from theraflow.layout import Scan

if TYPE_CHECKING:  # a CT has no injection, and its import not the time to load what reads one
    from theraflow.dicom.quantity.facts import Facts

logger = logging.getLogger(__name__)


def own_words(scan: Scan) -> str:
    """Words that the user has written himself and that may therefore appear in outputs."""
    return f"{scan.patient} {scan.scan}"


def scan_section(scan: Scan, choice: Choice) -> dict[str, Any]:
    """Which scan, and which series of it."""
    # Two makers in one series name none: whoever compares scanners is told that this one is unknown.
    makers = {
        (text(instance.header, "Manufacturer"), text(instance.header, "ManufacturerModelName"))
        for instance in choice.series.instances
    }
    manufacturer, model = makers.pop() if len(makers) == 1 else (None, None)
    return {
        "patient": scan.patient,
        "scan": scan.scan,
        "tracer": scan.tracer,
        "timepoint": scan.timepoint,
        "series_instance_uid": choice.series.uid,
        "series_chosen_because": choice.reason,
        "frame_of_reference_uid": choice.series.frame_of_reference,
        "scanner": " ".join(filter(None, (manufacturer, model))) or None,
        "virtual_patient": (manufacturer, model) == ("theraflow", "virtual patient"),
    }


def injection_section(tracer: Mapping[str, Any], facts: "Facts") -> dict[str, Any]:
    """What was injected into whom, and when it was seen."""
    return {
        "acquired_at": iso(facts.acquired_at),
        "radiopharmaceutical": tracer["radiopharmaceutical"],
        "nuclide": tracer["nuclide"],
        "injected_at": iso(facts.injected_at),
        "injected_mbq": None if facts.injected_bq is None else facts.injected_bq / 1e6,
        "weight_kg": facts.weight_kg,
        "height_cm": None if facts.height_m is None else facts.height_m * 100.0,
        "sex": facts.sex,
        "time_after_injection_h": _hours_after_injection(facts),
    }


def iso(time: datetime.datetime | None) -> str | None:
    """A time as text."""
    return None if time is None else time.isoformat()


def log_flags(scan: Scan, identity: Iterable[str], flags: Iterable[str]) -> list[str]:
    """The remarks without what tells who the patient is, each of them logged."""
    clean = [without_identity(flag, identity, own_words(scan)) for flag in flags]
    for flag in clean:
        logger.warning("%s: %s", scan.scan, flag)
    return clean


def _hours_after_injection(facts: "Facts") -> float | None:
    if facts.acquired_at is None or facts.injected_at is None:
        return None
    return (facts.acquired_at - facts.injected_at).total_seconds() / 3600.0
