"""The site of lesions in a body of boxes, tubes and ellipsoids whose anatomy is that of the textbook."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from theraflow.lesions.region import Region
from theraflow.lesions.site import main_pieces, organ_at_site, site_of
from theraflow.organs import ORGAN_IDS, organ_labels

LOW, HIGH, VOXEL_MM = (
    (-160.0, -110.0, -260.0),
    (160.0, 110.0, 420.0),
    4.0,
)  # x to the left, y to the back, z to the head
KNOWN = {"lymph node", "peritoneum", "bone", "lung", "soft tissue", "mediastinum", "pleura", "diaphragm",
         "retroperitoneum", *(name.replace("_", " ") for name in ORGAN_IDS)}  # fmt: skip


def grid_of_voxels(spacing=(VOXEL_MM,) * 3):
    image = sitk.Image([round((b - a) / s) for a, b, s in zip(LOW, HIGH, spacing, strict=True)], sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin([a + s / 2 for a, s in zip(LOW, spacing, strict=True)])
    return image


def axes(image):
    geometry = zip(image.GetOrigin(), image.GetSpacing(), image.GetSize(), strict=True)
    x, y, z = (origin + spacing * np.arange(n) for origin, spacing, n in geometry)
    return x[None, None, :], y[None, :, None], z[:, None, None]


def ellipsoid(image, centre, radii):
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes(image), centre, radii, strict=True)) <= 1.0


def box(image, *limits):
    inside = True
    for axis, (low, high) in zip(axes(image), limits, strict=True):
        inside = inside & (axis >= low) & (axis < high)
    return inside


def tube(image, start, end, radius):
    """Round in every axial plane, from one point to a higher one."""
    x, y, z = axes(image)
    t = (z - start[2]) / (end[2] - start[2])
    off = np.hypot(x - start[0] - t * (end[0] - start[0]), y - start[1] - t * (end[1] - start[1]))
    return (off < radius) & (t >= 0) & (t < 1)


def shapes(image):
    """Organs in the order in which they are painted, later ones over earlier ones."""
    for side, s in (("left", 1), ("right", -1)):
        yield f"iliopsoas_{side}", tube(image, (s * 80, -15, -170), (s * 42, 35, 10), 17)
        yield f"lung_lower_lobe_{side}", ellipsoid(image, (s * 75, 5, 190), (55, 78, 140)) & (axes(image)[2] > 70)
        yield f"kidney_{side}", ellipsoid(image, (s * 62, 48, 0), (25, 25, 45))
        yield f"hip_{side}", box(image, sorted((s * 88, s * 108)), (-20, 60), (-200, -80))
        yield f"femur_{side}", ellipsoid(image, (s * 98, 5, -180), (24, 24, 24))
        yield f"femur_{side}", tube(image, (s * 110, 5, -260), (s * 98, 5, -190), 14)
        yield f"gluteus_maximus_{side}", box(image, sorted((s * 30, s * 110)), (66, 95), (-220, -110))
        yield f"autochthon_{side}", box(image, sorted((s * 8, s * 45)), (76, 95), (-90, 320))
        yield f"scapula_{side}", box(image, sorted((s * 95, s * 145)), (88, 100), (170, 290))
        yield f"clavicula_{side}", box(image, sorted((s * 15, s * 130)), (-60, -48), (318, 330))
        yield f"iliac_artery_{side}", tube(image, (s * 56, -15, -160), (s * 12, 22, -72), 6)
    yield "liver", ellipsoid(image, (-62, 0, 45), (66, 82, 48))
    yield "spleen", ellipsoid(image, (95, 30, 40), (26, 38, 38))
    yield "stomach", ellipsoid(image, (50, -30, 45), (38, 38, 40))
    yield "small_bowel", ellipsoid(image, (0, -45, -50), (85, 34, 42))
    yield "colon", tube(image, (108, 8, -90), (108, 8, 0), 20) | tube(image, (-108, 8, -90), (-108, 8, 0), 20)
    yield "urinary_bladder", ellipsoid(image, (0, -38, -150), (36, 30, 26))
    yield "heart", ellipsoid(image, (15, -28, 130), (46, 36, 44))
    yield "sacrum", box(image, (-42, 42), (45, 75), (-165, -100))
    yield "sternum", box(image, (-16, 16), (-95, -84), (110, 290))
    yield "trachea", tube(image, (0, 8, 235), (0, 2, 410), 9)
    yield "esophagus", tube(image, (3, 30, 60), (2, 25, 400), 6)
    yield "aorta", tube(image, (8, 26, -75), (14, 30, 260), 11)
    yield "inferior_vena_cava", tube(image, (-20, 24, -75), (-20, 15, 95), 10)
    names = (
        [f"L{i}" for i in range(5, 0, -1)] + [f"T{i}" for i in range(12, 0, -1)] + [f"C{i}" for i in range(7, 2, -1)]
    )
    bottom = -100
    for name in names:
        height = 15 if name[0] == "C" else 25
        yield f"vertebrae_{name}", box(image, (-18, 18), (40, 72), (bottom, bottom + height))
        bottom += height


def paint(image):
    organs = np.zeros(image.GetSize()[::-1], dtype=np.uint8)
    for name, inside in shapes(image):
        organs[inside] = ORGAN_IDS[name]
    return organs


@pytest.fixture(scope="module")
def body():
    """Organ labels and grid."""
    image = grid_of_voxels()
    return paint(image), image


def sphere(image, centre, radius_mm=9.0):
    return Region.of(ellipsoid(image, centre, (radius_mm,) * 3))


PLACES = [
    # In an organ.
    ((-62, 0, 45), "liver", None),
    ((95, 30, 40), "spleen", None),
    ((75, 5, 190), "lung", None),
    ((0, 56, -40), "bone", None),
    ((-98, 20, -120), "bone", None),
    ((0, -38, -150), "urinary bladder", None),
    ((-70, 80, -160), "soft tissue", None),
    # Lymph nodes beside their vessels.
    ((28, 26, -30), "lymph node", "retroperitoneal"),
    ((-6, 14, -10), "lymph node", "retroperitoneal"),
    ((52, 8, -130), "lymph node", "iliac"),
    ((98, -45, -180), "lymph node", "inguinal"),
    ((30, 20, 375), "lymph node", "cervical"),
    ((-32, 10, 360), "lymph node", "cervical"),
    ((60, -50, 350), "lymph node", "supraclavicular"),
    ((136, 58, 250), "lymph node", "axillary"),
    ((-12, 20, 250), "lymph node", "mediastinal"),
    # Elsewhere.
    ((0, -55, 220), "mediastinum", None),
    ((0, -88, -50), "peritoneum", None),
    ((-95, -22, -60), "peritoneum", None),
    ((0, -50, -102), "peritoneum", None),
    ((-133, 5, 190), "pleura", None),
    ((95, 52, -10), "retroperitoneum", None),
    ((0, -103, 200), "soft tissue", None),
    ((140, 60, -140), "soft tissue", None),
    ((145, -60, 30), "soft tissue", None),
]


@pytest.mark.parametrize(("centre", "site", "station"), PLACES)
def test_site_and_station(body, centre, site, station):
    organs, image = body
    found = site_of(sphere(image, centre), organs, image)
    assert (found.site, found.station) == (site, station), found
    assert found.reason


def test_an_organ_is_certain_and_its_surroundings_a_guess(body):
    organs, image = body
    inside, beside = (site_of(sphere(image, centre), organs, image) for centre in ((-62, 0, 45), (28, 26, -30)))
    assert (inside.by, inside.certain) == ("organ", True)
    assert (beside.by, beside.certain) == ("surroundings", False)


@pytest.mark.parametrize(
    ("swallowed_by", "centre", "site", "station"),
    [
        ("aorta", (28, 26, -30), "lymph node", "retroperitoneal"),
        ("inferior_vena_cava", (-6, 14, -10), "lymph node", "retroperitoneal"),
        ("iliac_vena_left", (52, 8, -130), "lymph node", "iliac"),
        ("colon", (0, -88, -50), "peritoneum", None),
        ("small_bowel", (0, -50, -102), "peritoneum", None),
        ("trachea", (-12, 20, 250), "lymph node", "mediastinal"),
    ],
)
def test_what_a_vessel_or_bowel_swallowed_is_no_organ(body, swallowed_by, centre, site, station):
    organs, image = body
    lesion = sphere(image, centre)
    organs = organs.copy()
    organs[lesion.box][lesion.mask] = ORGAN_IDS[swallowed_by]
    found = site_of(lesion, organs, image)
    assert (found.site, found.station, found.certain) == (site, station, False)


def test_a_node_swallowed_by_the_psoas_and_a_tumour_in_it(body):
    """Without labels of the iliac vessels their place is the medial border of the muscle."""
    organs, image = body
    organs = np.where(np.isin(organs, organ_labels("iliac_arteries")), 0, organs).astype(np.uint8)
    muscle_x = 80 - 38 * 40 / 180
    medial, central = (site_of(sphere(image, (x, -4, -130), 8.0), organs, image) for x in (muscle_x - 10, muscle_x + 6))
    assert (medial.site, medial.station, medial.certain) == ("lymph node", "iliac", False)
    assert (central.site, central.by) == ("soft tissue", "organ")


def test_a_large_implant_that_touches_the_aorta_with_one_side_is_no_node(body):
    organs, image = body
    assert site_of(sphere(image, (10, -22, -25), 38.0), organs, image).site == "peritoneum"


def test_a_conglomerate_around_the_aorta_is_nodal(body):
    organs, image = body
    chain = Region.of(ellipsoid(image, (0, 18, -20), (36, 20, 45)) & (organs != ORGAN_IDS["aorta"]))
    found = site_of(chain, organs, image)
    assert (found.site, found.station) == ("lymph node", "retroperitoneal")


def test_a_hole_in_a_lung_is_lung_and_a_third_in_bone_is_bone(body):
    organs, image = body
    lesion = sphere(image, (75, 5, 190), 14.0)
    holed = organs.copy()
    holed[lesion.box][lesion.mask] = 0
    assert site_of(lesion, holed, image).site == "lung"
    # The wing of the hip bone is 20 mm thick; of a 24 mm sphere centred on its face nearly half lies in it.
    destroyed = site_of(sphere(image, (109, 20, -120), 12.0), organs, image)
    assert (destroyed.site, destroyed.certain) == ("bone", False)


def test_a_lesion_of_the_lungs_base_on_the_liver_is_no_certain_lung(body):
    """Breathing moves the dome by more than the lesion's distance."""
    organs, image = body
    found = site_of(sphere(image, (-62, 0, 104), 9.0), organs, image)
    assert (found.site, found.certain) == ("lung", False)
    assert "breathing" in found.reason


def test_a_lesion_on_the_diaphragm(body):
    organs, image = body
    gap = ellipsoid(image, (-62, 0, 96), (40, 40, 8))
    between = np.where(gap, 0, organs).astype(np.uint8)
    found = site_of(Region.of(ellipsoid(image, (-62, 0, 96), (12, 12, 7))), between, image)
    assert (found.site, found.certain) == ("diaphragm", False)


@pytest.fixture(scope="module", params=[(2.0, 2.0, 3.0), (5.0, 5.0, 3.0)])
def body_of_other_voxels(request):
    image = grid_of_voxels(request.param)
    return paint(image), image


@pytest.mark.parametrize(("centre", "site", "station"), PLACES[7:19])
def test_the_voxels_do_not_matter(body_of_other_voxels, centre, site, station):
    organs, image = body_of_other_voxels
    found = site_of(sphere(image, centre), organs, image)
    assert (found.site, found.station) == (site, station)


@pytest.mark.parametrize(("centre", "site", "station"), PLACES[7:16])
def test_the_order_of_the_axes_does_not_matter(body, centre, site, station):
    """The same body stored in sagittal planes from head to feet."""
    organs, image = body
    turned = sitk.PermuteAxes(sitk.Flip(image, (False, False, True)), (2, 1, 0))
    mask = ellipsoid(image, centre, (9.0,) * 3)
    found = site_of(Region.of(mask[::-1].transpose(2, 1, 0)), organs[::-1].transpose(2, 1, 0).copy(), turned)
    assert (found.site, found.station) == (site, station)


@settings(max_examples=25, deadline=None)
@given(
    centre=st.tuples(st.integers(-36, 36), st.integers(-24, 24), st.integers(-60, 100)),
    keep=st.sets(st.sampled_from(sorted(ORGAN_IDS)), max_size=117) | st.just(set(ORGAN_IDS)),
)
def test_any_labels_give_a_site_or_none_and_the_mirrored_body_the_same(body, centre, keep):
    organs, image = body
    organs = np.where(np.isin(organs, [ORGAN_IDS[name] for name in keep]), organs, 0).astype(np.uint8)
    x, y, z = (4.0 * c + 2.0 for c in centre)
    found = site_of(sphere(image, (x, y, z)), organs, image)
    assert found.site in KNOWN or (found.site, found.by) == (None, None)
    assert (found.station is not None) <= (found.site == "lymph node")
    other = {"left": "right", "right": "left"}
    table = np.arange(256, dtype=np.uint8)
    for name, label in ORGAN_IDS.items():
        opposite = "_".join(other.get(word, word) for word in name.split("_"))
        table[label] = ORGAN_IDS.get(opposite, ORGAN_IDS["lung_upper_lobe_left"])  # there is no left middle lobe
    mirrored = site_of(sphere(image, (-x, y, z)), table[organs[:, :, ::-1]], image)
    assert (mirrored.site, mirrored.station, mirrored.by) == (found.site, found.station, found.by)


def test_crumbs_of_organs_are_left_out(body):
    organs, image = body
    strewn = organs.copy()
    strewn[sphere(image, (40, 10, 375), 6.0).box] = ORGAN_IDS["femur_left"]  # in the neck
    strewn[sphere(image, (0, -70, 375), 6.0).box] = ORGAN_IDS["urinary_bladder"]
    assert (strewn != organs).any()
    np.testing.assert_array_equal(main_pieces(strewn), main_pieces(organs))
    # Both tubes of the colon remain, and a bladder of which nothing larger is there.
    np.testing.assert_array_equal(main_pieces(organs) == ORGAN_IDS["colon"], organs == ORGAN_IDS["colon"])
    crumb = np.where(organs == ORGAN_IDS["urinary_bladder"], 0, strewn)
    assert (main_pieces(crumb) == ORGAN_IDS["urinary_bladder"]).any()


def test_a_piece_needs_a_tenth_of_the_largest():
    organs = np.zeros((4, 5, 40), np.uint8)
    organs[0, 0, :20] = organs[2, 0, :2] = organs[2, 4, 0] = 5  # 20, 2 and 1 voxels
    organs[3, 4, 0] = 7  # touches the crumb, another organ
    cleaned = main_pieces(organs)
    assert (np.count_nonzero(cleaned == 5), np.count_nonzero(cleaned == 7)) == (22, 1)


def test_nothing_is_said_where_nothing_is_known(body):
    _, image = body
    lesion = sphere(image, (0, -80, -50))
    assert site_of(lesion, None, image).site is None
    assert site_of(lesion, np.zeros(image.GetSize()[::-1], np.uint8), image).site is None


@pytest.mark.parametrize("centre", [(0, -103, 200), (145, -60, 30), (0, -88, -50)])
@pytest.mark.parametrize("known", [("liver", "aorta", "spleen"), ("lungs", "liver"), ("bowel",)])
def test_a_few_organs_are_too_few_for_what_lies_between_organs(body, centre, known):
    organs, image = body
    few = np.where(np.isin(organs, organ_labels(*known)), organs, 0).astype(np.uint8)
    assert site_of(sphere(image, centre), few, image).site is None


def test_the_labels_of_the_demos_model_are_enough_for_the_trunk(body):
    """Without cervical vertebrae, airway, shoulder bones and iliac vessels."""
    organs, image = body
    absent = ("vertebrae_C", "trachea", "esophagus", "scapula", "clavicula", "iliac_")
    few = np.where(np.isin(organs, [ORGAN_IDS[n] for n in ORGAN_IDS if n.startswith(absent)]), 0, organs).astype(
        np.uint8
    )
    expected = {(28, 26, -30): "retroperitoneal", (30, 20, 375): "cervical", (-10, 24, 200): "mediastinal"}
    for centre, station in expected.items():
        assert site_of(sphere(image, centre), few, image).station == station


@pytest.mark.parametrize(
    ("annotation", "site", "station"),
    [
        ("LN_3", "lymph node", None),
        ("lymph_node_iliac", "lymph node", "iliac"),
        ("Para-aortic LN 2", "lymph node", "retroperitoneal"),
        ("left supraclavicular node", "lymph node", "supraclavicular"),
        ("retroperitoneal mass", "retroperitoneum", None),
        ("peritoneal metastasis 2", "peritoneum", None),
        ("perihepatic implant", "peritoneum", None),
        ("hepatic metastasis", "liver", None),
        ("mediastinal mass", "mediastinum", None),
        ("mediastinal lymph node", "lymph node", "mediastinal"),
        ("pleural", "pleura", None),
        ("soft_tissue", "soft tissue", None),
    ],
)
def test_the_readers_word_rules(body, annotation, site, station):
    _, image = body
    found = site_of(sphere(image, (0, 0, 0)), None, image, annotation)
    assert (found.site, found.station, found.by, found.certain) == (site, station, "reader", True)


def test_a_readers_node_gets_its_station_from_the_surroundings(body):
    organs, image = body
    beside_aorta, in_liver = (sphere(image, centre) for centre in ((28, 26, -30), (-62, 0, 45)))
    found = site_of(beside_aorta, organs, image, "node 1")
    assert (found.site, found.station, found.by) == ("lymph node", "retroperitoneal", "reader")
    found = site_of(in_liver, organs, image, "node 2")
    assert (found.site, found.station, found.by) == ("lymph node", None, "reader")
    assert site_of(in_liver, organs, image, "GTV_Mass").site == "liver"


def test_places_in_a_real_body(shared_data):
    """TotalSegmentator's test CT: upper abdomen, 117 classes."""
    image = sitk.DICOMOrient(sitk.ReadImage(shared_data / "ct_totalsegmentator" / "example_seg.nii.gz"), "LPS")
    organs = sitk.GetArrayFromImage(image).astype(np.uint8)

    def middle(name, of):
        return of(np.argwhere(organs == ORGAN_IDS[name]), axis=0)

    def ball(index):
        offsets = np.stack(np.meshgrid(*(np.arange(n) for n in organs.shape), indexing="ij"), axis=-1) - index
        return Region.of(np.linalg.norm(offsets * image.GetSpacing()[0], axis=-1) <= 8.0)

    z = round(middle("vertebrae_L1", np.mean)[0])
    aorta = np.argwhere(organs[z] == ORGAN_IDS["aorta"])
    left_of_aorta = (z, aorta[:, 0].mean(), aorta[:, 1].max() + 3)
    trunk = np.argwhere(organs[z] != 0)
    before_everything = (z, trunk[:, 0].min() - 6, np.median(trunk[:, 1]))
    found = [site_of(ball(np.array(place)), organs, image) for place in (left_of_aorta, before_everything)]
    assert [(f.site, f.station) for f in found] == [("lymph node", "retroperitoneal"), ("soft tissue", None)]


def test_the_organ_of_a_site_is_the_site_or_of_many_the_one_around():
    organs = np.zeros((10, 10, 10), np.uint8)
    organs[:5], organs[5:8] = ORGAN_IDS["vertebrae_T12"], ORGAN_IDS["vertebrae_L1"]
    mask = np.zeros(organs.shape, bool)
    mask[3:8, 2:4, 2:4] = True  # two layers of T12, three of L1
    assert organ_at_site(Region.of(mask), organs, "bone") == "vertebrae_L1"
    mask[8:] = True  # now most of it outside
    assert organ_at_site(Region.of(mask), organs, "bone") is None
    assert organ_at_site(Region.of(mask), organs, "kidney left") == "kidney_left"
    assert organ_at_site(Region.of(mask), organs, "lymph node") is None
    assert organ_at_site(Region.of(mask), organs, None) is None
    assert organ_at_site(Region.of(mask), None, "liver") is None
