"""The whole stage on a small patient of known lesions, and on a real PET with overlapping regions."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from alignment_on_disk import write_alignment
from scipy.ndimage import gaussian_filter

from theraflow.dicom import import_emission
from theraflow.errors import TheraflowError
from theraflow.files import write_json
from theraflow.images import divided, from_array, read_image, read_sidecar, same_grid, to_array, write_image
from theraflow.layout import PatientFolder, Scan
from theraflow.lesions import CANDIDATE_COLUMNS, LESION_COLUMNS, list_candidates, measure_lesions
from theraflow.organs import ORGAN_IDS
from theraflow.registration.transforms import write_transform
from theraflow.tables import read_table, write_table

SETTINGS = {
    "candidates": {
        tracer: {"threshold_suv": 4.0, "combine": "highest", "outline": "threshold"} for tracer in ("FDG", "pentixafor")
    },
    "minimum_ml": 1.0,
    "physiologic": {"FDG": ["urinary_bladder"], "pentixafor": ["urinary_bladder"]},
    "match_distance_mm": 15.0,
    "positivity_ratio": 1.5,
    "background": "blood_pool",
    "repeatability_cv": {"FDG": {"suv_peak": 0.1}},
}
BLUR_MM = 6.0 / 2.3548
# Organs as centre, semi-axes (x, y, z in mm of the reference scan) and SUV.
ORGANS = {
    "liver": ((-50, 0, 50), (45, 45, 40), 2.0),
    "aorta": ((10, 40, 0), (13, 13, 90), 1.5),
    "urinary_bladder": ((0, 0, -105), (28, 28, 18), 20.0),
}
# Lesions as centre, radius, and SUV on each scan that shows them.
LESIONS = {
    "both": ((-60, 0, 60), 14, {"fdg0": 10.0, "cxcr4": 8.0, "fdg1": 5.0}),
    "only FDG": ((60, -20, 0), 12, {"fdg0": 8.0}),
    "only pentixafor": ((50, 40, -70), 12, {"cxcr4": 7.0}),
    "new": ((-50, -30, -50), 12, {"fdg1": 7.0}),
}
NAMES = {"both": "L01", "only FDG": "L02", "only pentixafor": "L03", "new": "L04"}
# What must be added to a point of the reference scan to get the point of the scan.
SHIFT = {"fdg0": (0, 0, 0), "cxcr4": (7.0, -5.0, 11.0), "lu": (-4.0, 6.0, 3.0), "fdg1": (3.0, 3.0, -8.0)}
READER = {"fdg0": ("both", "only FDG"), "fdg1": ("both", "new")}


def run(folder, scans, reference, settings, decisions=()):
    """Both steps, as the rules call them."""
    for scan in scans:
        if scan.quantity == "suv" and scan.tracer in settings["candidates"]:
            list_candidates(folder, scan, settings)
    measure_lesions(folder, scans, reference, settings, decisions)


def ellipsoid(image, centre, semi_axes):
    axes = [
        (origin + spacing * np.arange(n) - c) / a
        for origin, spacing, n, c, a in zip(
            image.GetOrigin(), image.GetSpacing(), image.GetSize(), centre, semi_axes, strict=True
        )
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.transpose(x**2 + y**2 + z**2 <= 1.0, (2, 1, 0))


def empty(spacing, size, origin):
    image = sitk.Image(list(size), sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def shifted(scan, centre):
    return tuple(a + b for a, b in zip(centre, SHIFT[scan], strict=True))


def write_judgement(folder, scan, **remarks):
    """The scan's table of organs, of which those in `remarks` are not plausible."""
    rows = [
        {"organ": organ, "plausible": "no" if organ in remarks else "yes", "remark": remarks.get(organ),
         "touches_edge": False, **dict(zip(("x_mm", "y_mm", "z_mm"), shifted(scan, centre), strict=True))}
        for organ, (centre, _, _) in ORGANS.items()
    ]  # fmt: skip
    write_table(pd.DataFrame(rows), folder.organ_table(scan), list(rows[0]))


def write_scan(folder, scan):
    """Emission image, organ labels on a coarser CT grid, transforms and (in some) the reader's label map."""
    name = scan.scan
    bottom = -45.0 if name == "lu" else -135.0  # the SPECT ends above the lower lesions
    spacing = (5.0, 5.0, 5.0) if name == "lu" else (4.0, 4.0, 3.0)
    grid = empty(
        spacing,
        [round(a / b) for a, b in zip((240, 240, 130 - bottom), spacing, strict=True)],
        (-120, -120, bottom),
    )
    values = np.full(grid.GetSize()[::-1], 0.5)
    ct = empty((3.0, 3.0, 5.0), (80, 80, 54), (-120.0, -120.0, -137.0))
    labels = np.zeros(ct.GetSize()[::-1], dtype=np.uint8)
    for organ, (centre, semi_axes, suv) in ORGANS.items():
        values[ellipsoid(grid, shifted(name, centre), semi_axes)] = suv
        labels[ellipsoid(ct, shifted(name, centre), semi_axes)] = ORGAN_IDS[organ]
    marked = np.zeros(values.shape, dtype=np.uint8)
    for number, (lesion, (centre, radius, suv)) in enumerate(LESIONS.items(), start=1):
        inside = ellipsoid(grid, shifted(name, centre), (radius,) * 3)
        if name in suv:
            values[inside] = suv[name]
        if lesion in READER.get(name, ()):
            marked[inside] = number
    values = gaussian_filter(values, [BLUR_MM / s for s in reversed(spacing)])
    quantity = {"quantity": "SUVbw", "unit": "g/mL"}
    write_image(from_array(values.astype(np.float32), grid), folder.emission(scan), quantity)
    write_image(from_array(labels, ct), folder.organs(name), {"quantity": "organ label", "unit": "1"})
    write_judgement(folder, name)
    write_alignment(folder, name)
    to_scan = sitk.TranslationTransform(3, SHIFT[name])
    write_transform(to_scan, folder.to_scan(name))
    write_transform(to_scan.GetInverse(), folder.to_reference(name))
    write_json({"verdict": "good"}, folder.registration_quality(name))
    if scan.lesions:
        sitk.WriteImage(from_array(marked, grid), scan.lesions)
        write_json({"labels": {str(i): name for i, name in enumerate(LESIONS, start=1)}}, scan.lesions[:-6] + "json")


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """The patient's folder, scans, and the table that the stage has written."""
    root = tmp_path_factory.mktemp("lesions")
    folder = PatientFolder(root / "results", "P001")
    scans = [
        Scan(
            "P001",
            name,
            tracer,
            timepoint,
            "",
            quantity,
            str(root / f"{name}_reader.nii.gz") if name in READER else None,
        )
        for name, tracer, timepoint, quantity in (
            ("fdg0", "FDG", "baseline", "suv"),
            ("cxcr4", "pentixafor", "baseline", "suv"),
            ("lu", "pentixather", "dosimetry", "activity"),
            ("fdg1", "FDG", "followup", "suv"),
        )
    ]
    for scan in scans:
        write_scan(folder, scan)
    run(folder, scans, scans[0], SETTINGS)
    return folder, scans, read_table(folder.table("lesions"))


def row(table, lesion, scan):
    (found,) = table[(table["lesion"] == NAMES[lesion]) & (table["scan"] == scan)].to_dict("records")
    return found


def test_every_lesion_has_one_row_on_every_scan(patient):
    _, scans, table = patient
    assert list(table.columns) == list(LESION_COLUMNS)
    assert list(table["lesion"]) == [name for name in ("L01", "L02", "L03", "L04") for _ in scans]
    assert list(table["scan"]) == [scan.scan for scan in scans] * 4
    assert list(table["label"].unique()) == [1, 2, 3, 4]


@pytest.mark.parametrize(("lesion", "scan"), [(lesion, scan) for lesion in LESIONS for scan in SHIFT])
def test_lesions_are_where_they_are_on_every_scan(patient, lesion, scan):
    found, (centre, radius, seen) = row(patient[2], lesion, scan), LESIONS[lesion]
    by_reader, by_candidate = lesion in READER.get(scan, ()), scan == "cxcr4" and scan in seen
    assert found["source"] == ("reader" if by_reader else "candidate" if by_candidate else "carried")
    if scan == "lu" and centre[2] < -40:
        assert np.isnan(found["volume_ml"]) and np.isnan(found["x_mm"])
        return
    assert [found["x_mm"], found["y_mm"], found["z_mm"]] == pytest.approx(shifted(scan, centre), abs=1.0)
    assert found["volume_ml"] == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.35 if by_candidate else 0.1)
    assert found["longest_diameter_mm"] == pytest.approx(2 * radius, abs=5.0)


@pytest.mark.parametrize("lesion", LESIONS)
@pytest.mark.parametrize("scan", ["fdg0", "cxcr4", "fdg1"])
def test_uptake_is_that_of_the_scan_itself(patient, lesion, scan):
    found = row(patient[2], lesion, scan)
    truth = LESIONS[lesion][2].get(scan, 2.0 if lesion == "both" else 0.5)
    # A ball of 24 mm, blurred by 6 mm FWHM, keeps at least 97 % in the middle 12 mm.
    assert found["suv_peak"] == pytest.approx(truth, rel=0.05)
    assert found["background_region"] == "blood_pool"
    assert found["background_suv"] == pytest.approx(1.5, rel=0.03)
    assert found["tbr"] == pytest.approx(found["suv_peak"] / found["background_suv"])
    assert found["tlg_ml"] == pytest.approx(found["suv_mean"] * found["volume_ml"])
    assert found["suv_mean"] <= found["suv_peak"] * 1.001 <= found["suv_max"] * 1.002


def test_activity_scans_have_geometry_but_no_suv(patient):
    found = row(patient[2], "both", "lu")
    assert found["volume_ml"] > 0
    for column in (
        "suv_max",
        "suv_peak",
        "suv_peak_ibsi_local",
        "tbr",
        "background_suv",
        "tlg_ml",
        "positive",
    ):
        assert np.isnan(found[column])


def test_positive_by_reader_where_there_is_one_and_else_by_the_shell(patient):
    table = patient[2]
    positive = {
        lesion: [row(table, lesion, scan)["positive"] for scan in ("fdg0", "cxcr4", "fdg1")] for lesion in LESIONS
    }
    assert positive == {
        "both": [True, True, True],
        "only FDG": [True, False, False],
        "only pentixafor": [False, True, False],
        "new": [False, False, True],
    }


def test_concordance_at_baseline(patient):
    found = patient[2].groupby("lesion")["concordance"].unique().map(list).to_dict()
    assert found == {"L01": ["concordant"], "L02": ["FDG-only"], "L03": ["pentixafor-only"], "L04": ["none"]}


def test_site_and_annotation(patient):
    table = patient[2]
    assert set(table.loc[table["lesion"] == "L01", "site"]) == {"liver"}
    assert set(table.loc[table["lesion"] == "L01", "site_by"]) == {"organ"}
    # In no organ, in a body of three organs.
    assert set(table.loc[table["lesion"] == "L03", "site_by"].dropna()) <= {"surroundings"}
    assert row(table, "new", "fdg1")["annotation"] == "new"
    assert np.isnan(row(table, "new", "fdg0")["annotation"])


def test_label_maps_hold_each_lesion_on_each_scans_own_grid_or_for_a_spect_on_a_finer_one(patient):
    folder, scans, table = patient
    for scan in scans:
        image = read_image(folder.lesion_map(scan.scan))
        emission = read_image(folder.emission(scan))
        assert same_grid(image, emission if scan.quantity == "suv" else divided(emission, 2.0))
        sizes = np.bincount(to_array(image).ravel(), minlength=5) * np.prod(image.GetSpacing()) / 1000
        rows = table[table["scan"] == scan.scan].set_index("label")["volume_ml"].fillna(0.0)
        assert list(sizes[1:]) == pytest.approx(list(rows))
        sidecar = read_sidecar(folder.lesion_map(scan.scan))
        assert sidecar["labels"] == {str(i): f"L{i:02d}" for i, volume in rows.items() if volume}
    np.testing.assert_array_equal(
        to_array(read_image(folder.lesion_map())), to_array(read_image(folder.lesion_map("fdg0")))
    )


def test_candidates_are_listed_without_physiologic_uptake(patient):
    candidates = read_table(patient[0].table("candidates"))
    assert list(candidates.columns) == list(CANDIDATE_COLUMNS)
    kept = candidates[candidates["kept"]]
    assert kept.groupby("scan").size().to_dict() == {"cxcr4": 2, "fdg0": 2, "fdg1": 2}
    left_out = candidates[~candidates["kept"]]
    assert left_out["reason"].unique().tolist() == ["physiologic uptake of urinary bladder"]
    candidates = kept
    assert candidates.loc[candidates["scan"] != "cxcr4", "in_reader_annotation"].eq(True).all()
    assert candidates.loc[candidates["scan"] == "cxcr4", "in_reader_annotation"].isna().all()


def test_organs_lie_where_the_correction_puts_them(tmp_path):
    """CT and organs 30 mm beside the emission image, and the correction that says so: nothing else changes."""
    tables = []
    for name, moved_mm in (("P004", 0.0), ("P005", 30.0)):
        folder = PatientFolder(tmp_path, name)
        scan = Scan(name, "fdg0", "FDG", "baseline", "", "suv", str(tmp_path / f"{name}.nii.gz"))
        write_scan(folder, scan)
        organs = read_image(folder.organs("fdg0"))
        organs.SetOrigin([part - moved_mm for part in organs.GetOrigin()])
        write_image(organs, folder.organs("fdg0"), {"quantity": "organ label", "unit": "1"})
        write_alignment(folder, "fdg0", sitk.TranslationTransform(3, [moved_mm] * 3), "corrected")
        run(folder, [scan], scan, SETTINGS)
        tables.append(read_table(folder.table("lesions")).drop(columns="patient"))
    assert tables[0]["background_suv"].notna().all()
    pd.testing.assert_frame_equal(*tables)


def test_without_organs_background_is_missing_and_candidates_do_not_count(tmp_path, caplog):
    folder = PatientFolder(tmp_path, "P002")
    scans = [Scan("P002", name, tracer, "baseline", "", "suv", reader) for name, tracer, reader in (
        ("fdg0", "FDG", str(tmp_path / "reader.nii.gz")), ("cxcr4", "pentixafor", None))]  # fmt: skip
    for scan in scans:
        write_scan(folder, scan)
        folder.organs(scan.scan).unlink()
    run(folder, scans, scans[0], SETTINGS)
    table = read_table(folder.table("lesions"))
    assert set(table["lesion"]) == {"L01", "L02"}
    assert table[["background_region", "background_suv", "tbr", "site"]].isna().all(axis=None)
    assert table["suv_peak"].notna().all()
    assert len(read_table(folder.table("candidates")).query("scan == 'cxcr4'")) == 3  # with the bladder
    assert "no organ labels" in caplog.text
    assert table["background_remark"].unique().tolist() == ["the scan has no organ labels"]
    run(folder, scans, scans[0], SETTINGS | {"background": "shell"})
    shell = read_table(folder.table("lesions")).set_index(["lesion", "scan"])["background_suv"]
    assert shell["L02", "fdg0"] == pytest.approx(0.5, rel=0.1)


def test_an_organ_that_is_not_plausible_is_no_background(tmp_path, caplog):
    folder = PatientFolder(tmp_path, "P004")
    scan = Scan("P004", "fdg0", "FDG", "baseline", "", "suv", str(tmp_path / "reader.nii.gz"))
    write_scan(folder, scan)
    run(folder, [scan], scan, SETTINGS)
    before = read_table(folder.table("lesions"))
    assert before["background_suv"].notna().all()
    assert before["background_remark"].isna().all()
    write_judgement(folder, "fdg0", aorta="5.2 mL, expected 23 to 1268 mL in an adult")
    run(folder, [scan], scan, SETTINGS)
    table = read_table(folder.table("lesions"))
    assert table[["background_region", "background_suv", "tbr"]].isna().all(axis=None)
    assert set(table["background_remark"]) == {"aorta is not plausible (5.2 mL, expected 23 to 1268 mL in an adult)"}
    assert "aorta is not plausible" in caplog.text
    assert table["positive"].tolist() == before["positive"].tolist()  # judged by the shell


def test_a_patient_without_lesions_has_empty_tables(tmp_path):
    folder = PatientFolder(tmp_path, "P003")
    scan = Scan("P003", "lu", "pentixather", "dosimetry", "", "activity")
    write_scan(folder, scan)
    run(folder, [scan], scan, SETTINGS)
    assert list(read_table(folder.table("lesions")).columns) == list(LESION_COLUMNS)
    assert len(read_table(folder.table("lesions"))) == 0
    assert not to_array(read_image(folder.lesion_map())).any()


def test_an_unknown_background_is_refused(tmp_path):
    scan = Scan("P003", "fdg0", "FDG", "baseline", "", "suv")
    with pytest.raises(TheraflowError, match=r"background 'spleen'.*blood_pool"):
        measure_lesions(PatientFolder(tmp_path, "P003"), [scan], scan, SETTINGS | {"background": "spleen"})


def test_what_was_carried_says_from_where_and_what_became_of_its_volume(patient):
    table = patient[2]
    own = table[table["source"] != "carried"]
    assert own[["carried_from", "volume_change"]].isna().all(axis=None)
    assert own.drop_duplicates("lesion")["matched_by"].isna().all()  # the first scan of each names it
    assert set(own[own.duplicated("lesion")]["matched_by"]) == {"position"}
    assert set(table["registration"]) == {"good"}
    assert row(table, "only FDG", "cxcr4")["carried_from"] == "fdg0"
    assert row(table, "new", "fdg0")["carried_from"] == "fdg1"
    carried = table[(table["source"] == "carried") & table["volume_ml"].notna()]
    assert carried["matched_by"].isna().all()
    assert carried["volume_change"].to_numpy() == pytest.approx(1.0, abs=0.05)  # only shifted
    outside = table[(table["source"] == "carried") & table["volume_ml"].isna()]
    assert len(outside) > 0 and outside["volume_change"].isna().all()


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_the_volume_of_a_carried_sphere_changes_by_the_cube_of_the_scale(tmp_path, scale):
    """A point p of the reference lies at scale x p in the scan, so that a ball's volume becomes scale^3 of its own."""
    folder = PatientFolder(tmp_path, "P005")
    scans = [Scan("P005", "fdg0", "FDG", "baseline", "", "suv", str(tmp_path / "reader.nii.gz")),
             Scan("P005", "cxcr4", "pentixafor", "baseline", "", "suv")]  # fmt: skip
    for scan in scans:
        write_scan(folder, scan)
    to_scan = sitk.AffineTransform(3)
    to_scan.Scale(scale)
    write_transform(to_scan, folder.to_scan("cxcr4"))
    write_transform(to_scan.GetInverse(), folder.to_reference("cxcr4"))
    run(folder, scans, scans[0], SETTINGS | {"candidates": {}})
    table = read_table(folder.table("lesions")).set_index(["lesion", "scan"])
    assert len(table) == 4
    for name in ("L01", "L02"):
        here, there = table.loc[(name, "cxcr4")], table.loc[(name, "fdg0")]
        assert here["volume_change"] == pytest.approx(scale**3, rel=0.08)  # balls of 6 to 7 voxels across
        assert here["volume_change"] == pytest.approx(here["volume_ml"] / there["volume_ml"])


@pytest.fixture(scope="module")
def unregistered(tmp_path_factory):
    """The patient whose pentixafor scan could not be registered: its transforms lead 70 mm away from the truth."""
    folder = PatientFolder(tmp_path_factory.mktemp("unregistered"), "P006")
    root = folder.root
    scans = [
        Scan("P006", "fdg0", "FDG", "baseline", "", "suv", str(root / "fdg0_reader.nii.gz")),
        Scan("P006", "cxcr4", "pentixafor", "baseline", "", "suv"),
        Scan("P006", "fdg1", "FDG", "followup", "", "suv", str(root / "fdg1_reader.nii.gz")),
    ]
    root.mkdir(parents=True)
    for scan in scans:
        write_scan(folder, scan)
    wrong = sitk.TranslationTransform(3, (0.0, 0.0, 70.0))
    write_transform(wrong, folder.to_scan("cxcr4"))
    write_transform(wrong.GetInverse(), folder.to_reference("cxcr4"))
    write_json({"verdict": "failed"}, folder.registration_quality("cxcr4"))
    run(folder, scans, scans[0], SETTINGS)
    return folder, scans, read_table(folder.table("lesions"))


def test_a_failed_registration_leaves_organ_and_distance(unregistered):
    table = unregistered[2]
    found = row(table, "both", "cxcr4")  # in the liver on both scans
    assert (found["source"], found["matched_by"]) == ("candidate", "organ and distance")
    assert [found["x_mm"], found["y_mm"], found["z_mm"]] == pytest.approx(shifted("cxcr4", (-60, 0, 60)), abs=1.5)
    assert found["suv_peak"] == pytest.approx(8.0, rel=0.05)
    assert row(table, "both", "fdg1")["matched_by"] == "position"
    assert table.groupby("scan")["registration"].unique().map(list).to_dict() == {
        "fdg0": ["good"], "cxcr4": ["failed"], "fdg1": ["good"],
    }  # fmt: skip


def test_nothing_is_carried_through_a_failed_registration(unregistered):
    folder, _, table = unregistered
    numbers = ["volume_ml", "suv_max", "suv_mean", "suv_peak", "tbr", "tlg_ml", "x_mm", "longest_diameter_mm"]
    others = ["positive", "volume_change", "source", "carried_from"]
    missing = {"only FDG": ("cxcr4",), "new": ("cxcr4",), "only pentixafor": ("fdg0", "fdg1")}
    only_there = row(table, "only pentixafor", "cxcr4")  # in no organ: not to be matched, a lesion of its own
    assert only_there["source"] == "candidate" and np.isnan(only_there["matched_by"])
    for lesion, scan in ((lesion, scan) for lesion, scans in missing.items() for scan in scans):
        assert pd.Series(row(table, lesion, scan))[[*numbers, *others]].isna().all(), (lesion, scan)
    assert row(table, "only FDG", "fdg1")["carried_from"] == "fdg0"  # between the others all is as before
    assert set(np.unique(to_array(read_image(folder.lesion_map("cxcr4"))))) == {0, 1, 3}


def test_a_failed_registration_is_never_a_negative(unregistered):
    table = unregistered[2]
    kinds = table.drop_duplicates("lesion").set_index("lesion")["concordance"]
    assert kinds["L01"] == "concordant"  # both tracers show it themselves
    assert kinds[["L02", "L03", "L04"]].isna().all()


def test_farther_from_the_organs_centre_it_is_another_lesion(tmp_path):
    """The liver's centre of the unregistered scan is told too low: the lesions' places in it differ by as much."""
    folder = PatientFolder(tmp_path, "P007")
    scans = [Scan("P007", "fdg0", "FDG", "baseline", "", "suv", str(tmp_path / "reader.nii.gz")),
             Scan("P007", "cxcr4", "pentixafor", "baseline", "", "suv")]  # fmt: skip
    for scan in scans:
        write_scan(folder, scan)
    write_json({"verdict": "failed"}, folder.registration_quality("cxcr4"))
    table = read_table(folder.organ_table("cxcr4"))
    for drop_mm, lesions in ((12.0, 3), (18.0, 4)):
        moved = table.assign(z_mm=table["z_mm"].where(table["organ"] != "liver", table["z_mm"] - drop_mm))
        write_table(moved, folder.organ_table("cxcr4"), list(table.columns))
        run(folder, scans, scans[0], SETTINGS)
        assert read_table(folder.table("lesions"))["lesion"].nunique() == lesions
    cut = table.assign(touches_edge=table["organ"] == "liver")  # the centre of half a liver is not the liver's
    write_table(cut, folder.organ_table("cxcr4"), list(table.columns))
    run(folder, scans, scans[0], SETTINGS)
    assert read_table(folder.table("lesions"))["lesion"].nunique() == 4


@pytest.mark.shared_data
def test_a_tumour_inside_its_oedema_is_measured_beside_it(shared_data, tmp_path):
    """TCIA Soft-tissue-Sarcoma patient 1: published SUVmax of the mass 7.9 to 8.0."""
    series = shared_data / "sts_001_wholebody" / "FDG_PET"
    (reader,) = [path for path in series.rglob("*.dcm") if path.parent.name != "image"]
    scan = Scan("STS_001", "fdg", "FDG", "baseline", str(series / "image"), "suv", str(reader))
    folder = PatientFolder(tmp_path, "STS_001")
    import_emission(
        scan, {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}, folder.emission(scan)
    )
    identity = sitk.TranslationTransform(3)
    write_transform(identity, folder.to_scan("fdg"))
    write_transform(identity, folder.to_reference("fdg"))
    write_json({"verdict": "good"}, folder.registration_quality("fdg"))
    run(folder, [scan], scan, SETTINGS)
    table = read_table(folder.table("lesions")).set_index("annotation")
    assert set(table.index) == {"GTV_Mass", "GTV_Edema"}
    assert 7.9 <= table.loc["GTV_Mass", "suv_max"] <= 8.0
    assert table.loc["GTV_Edema", "volume_ml"] > table.loc["GTV_Mass", "volume_ml"]
    labels = to_array(read_image(folder.lesion_map()))
    spacing = np.prod(read_image(folder.lesion_map()).GetSpacing()) / 1000
    mass = table.loc["GTV_Mass"]
    assert np.count_nonzero(labels == mass["label"]) * spacing == pytest.approx(mass["volume_ml"])
