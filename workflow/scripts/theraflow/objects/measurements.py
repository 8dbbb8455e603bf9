"""The measurements of a scan's lesions as a structured report: TID 1500 with a group (TID 1411) for each lesion.

Every number is in the report twice, as decimal string and as double (FloatingPointValue), so that it comes back to the
last digit. What a lesion does not have is left out; nothing stands for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import highdicom as hd
import pandas as pd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import theraflow
from theraflow.objects.codes import OWN_SCHEME, organ_code, site_code
from theraflow.objects.instance import common, derived_uid, own_scheme, sealed
from theraflow.objects.origin import Origin

_SUV = (codes.DCM.Suvbw, Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"))  # CID 7180, CID 85
# theraflow's SUL is by Janmahasatian's lean body mass.
_SUL = (
    codes.DCM.SuvlbmJanma,
    Code("g/ml{SUVlbm(Janma)}", "UCUM", "Standardized Uptake Value lean body mass (Janma)"),
)
_VOLUME = (codes.SCT.Volume, Code("ml", "UCUM", "milliliter"))
_RATIO = Code("{ratio}", "UCUM", "ratio")
_MILLIMETRE = Code("mm", "UCUM", "millimeter")
_GRAM = Code("g", "UCUM", "gram")
_MAXIMUM, _MEAN, _MEDIAN = codes.SCT.Maximum, codes.SCT.Mean, codes.DCM.Median
_PEAK = codes.DCM.PeakValueWithinROI
# Column of lesions.tsv: name and unit, and how the value is derived from the voxels.
_MEASUREMENTS = {
    "volume_ml": (_VOLUME, None),
    "suv_max": (_SUV, _MAXIMUM), "suv_mean": (_SUV, _MEAN), "suv_median": (_SUV, _MEDIAN), "suv_peak": (_SUV, _PEAK),
    "sul_max": (_SUL, _MAXIMUM), "sul_mean": (_SUL, _MEAN), "sul_peak": (_SUL, _PEAK),
    "tbr": ((codes.DCM.LesionToBackgroundSUVRatio, _RATIO), None),
    "longest_diameter_mm": ((codes.SCT.LongAxis, _MILLIMETRE), None),
    "short_axis_mm": ((codes.SCT.ShortAxis, _MILLIMETRE), None),
}  # fmt: skip
# SUVmean times volume: of FDG it has a code of its own; of another tracer it is no glycolysis.
_GLYCOLYSIS = codes.DCM.TotalLesionGlycolysis
_LESION_UPTAKE = Code("lesion_uptake", OWN_SCHEME, "Total lesion uptake (SUVmean times volume)")
_POSITIVE = Code("positive", OWN_SCHEME, "Uptake above physiologic background")
_BACKGROUNDS = {
    "blood_pool": organ_code("aorta")[0],
    "liver": organ_code("liver")[0],
    "gluteal_muscle": organ_code("gluteus_maximus_left")[0],
    "shell": Code("shell", OWN_SCHEME, "Shell around the lesion"),
}
_PROCEDURES = {"pet": codes.LN.PETUnspecifiedBodyRegion, "spect": codes.SCT.SPECT}


def build_report(
    lesions: pd.DataFrame,
    emission: str,
    radiopharmaceutical: str,
    origin: Origin,
    segmentation: hd.seg.Segmentation,
    tracking: Mapping[str, str],
    series_number: int,
) -> hd.sr.Comprehensive3DSR:
    """The report of one scan.

    Args:
        lesions: rows of lesions.tsv of the scan, those of lesions with a segment.
        emission: `pet` or `spect`.
        radiopharmaceutical: as the configuration names it.
        origin: the emission series.
        segmentation: the lesions' segments, to which each group refers by the segment's label.
        tracking: UID of each lesion, the same in all scans of the patient.
        series_number: of the series in its study.
    """
    numbers = {one.SegmentLabel: one.SegmentNumber for one in segmentation.SegmentSequence}
    glycolysis = any(word in radiopharmaceutical.lower() for word in ("fdg", "fluorodeoxyglucose"))
    groups = [
        _group(row, numbers[row["lesion"]], glycolysis, origin, segmentation, tracking[row["lesion"]])
        for row in lesions.to_dict("records")
    ]
    version = theraflow.__version__
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("theraflow", version),
            name="theraflow",
            manufacturer_name="theraflow",
            model_name=f"theraflow {version}",
        ),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_PROCEDURES[emission],
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = hd.sr.Comprehensive3DSR(
        evidence=[*origin.images, segmentation],  # of the first the patient is taken
        content=report,
        is_complete=True,
        coding_schemes=own_scheme(),
        **common(series_number, f"Lesion measurements ({radiopharmaceutical})"),
    )
    return sealed(document, origin)


def _group(
    row: Mapping[str, Any],
    number: int,
    glycolysis: bool,
    origin: Origin,
    segmentation: hd.seg.Segmentation,
    tracking_uid: str,
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    site = site_code(_known(row["site"]), _known(row["station"]))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=tracking_uid, identifier=row["lesion"]),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(origin.header.SeriesInstanceUID),
        ),
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_type=codes.SCT.Lesion,
        finding_sites=[hd.sr.FindingSite(site[0], laterality=site[1])] if site else None,
        measurements=list(_measurements(row, glycolysis)),
        qualitative_evaluations=list(_evaluations(row)) or None,
    )


def _measurements(row: Mapping[str, Any], glycolysis: bool) -> Iterator[hd.sr.Measurement]:
    uptake = _GLYCOLYSIS if glycolysis else _LESION_UPTAKE
    for column, ((name, unit), derivation) in (_MEASUREMENTS | {"tlg_ml": ((uptake, _GRAM), None)}).items():
        if _known(row[column]) is not None:
            yield hd.sr.Measurement(name=name, value=float(row[column]), unit=unit, derivation=derivation)


def _evaluations(row: Mapping[str, Any]) -> Iterator[hd.sr.QualitativeEvaluation]:
    if _known(row["positive"]) is not None:
        answer = codes.SCT.Yes if str(row["positive"]) == "True" else codes.SCT.No
        yield hd.sr.QualitativeEvaluation(_POSITIVE, answer)
    if _known(row["tbr"]) is not None:
        background = _BACKGROUNDS[row["background_region"]]
        yield hd.sr.QualitativeEvaluation(codes.DCM.BackgroundForLesionToBackgroundSUVRatio, background)


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value
