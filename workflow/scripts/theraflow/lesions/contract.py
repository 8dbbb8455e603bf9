"""What others read of the lesions: the columns of their tables, the words in them and what they are held to.

Apart from what finds and measures lesions, so that a report that shows them does not load it.
"""

LESION_COLUMNS = (
    "patient", "scan", "tracer", "timepoint", "lesion", "label", "site", "volume_ml", "suv_max", "suv_mean",
    "suv_peak", "tbr", "background_region", "background_suv", "tlg_ml", "positive", "concordance",
    "x_mm", "y_mm", "z_mm", "longest_diameter_mm", "short_axis_mm", "source",
    "suv_peak_ibsi_local", "suv_peak_ibsi_global", "annotation", "background_remark",
    "registration", "matched_by", "carried_from", "volume_change",
    "suv_median", "sul_max", "sul_mean", "sul_peak", "suv_max_sd", "suv_mean_sd", "suv_peak_sd",
    "positive_by", "shell_suv", "station", "site_by", "confidence", "parts", "look",
)  # fmt: skip
FOUND_COLUMNS = (
    "patient", "scan", "tracer", "candidate", "site", "volume_ml", "suv_max", "x_mm", "y_mm", "z_mm",
    "kept", "reason", "hottest_x_mm", "hottest_y_mm", "hottest_z_mm",
)  # fmt: skip
CANDIDATE_COLUMNS = (*FOUND_COLUMNS, "in_reader_annotation", "lesion")
TBR_COLUMNS = (
    "patient", "scan", "tracer", "timepoint", "lesion", "background_region", "background_suv", "background_volume_ml",
    "tbr", "remark",
)  # fmt: skip
BURDEN_COLUMNS = (
    "patient", "scan", "tracer", "timepoint", "site", "n_lesions", "n_positive", "n_unmeasured", "mtv_ml", "tlg_ml",
    "suv_max", "suv_peak_max", "hottest", "mtv_measured_ml", "tlg_measured_ml",
)  # fmt: skip
MISMATCH_COLUMNS = (
    "patient", "timepoint", "tracer_a", "tracer_b", "measure", "volume_ml", "measured_ml", "n_lesions",
    "n_unmeasured", "remark",
)  # fmt: skip

# Who has outlined a lesion on a scan: a reader, the program from his click or by its rule, or nobody there, so that it
# comes from another scan.
READER, CLICK, CANDIDATE, CARRIED = "reader", "click", "candidate", "carried"
SURROUNDINGS = "surroundings"  # what tells of a site where neither a reader nor an organ does
BY_ORGAN = "organ and distance"  # what tells that two regions are one lesion where their positions do not
CONFIDENT = 0.9  # below it a person should look
BLOOD_POOL, LIVER, MUSCLE, SHELL = BACKGROUNDS = ("blood_pool", "liver", "gluteal_muscle", "shell")
ALL_SITES = "all"
TOLERANCE_MM = 5.0  # a border nearer than this to the other tracer's may be off by registration and voxels alone
FINEST_MAP_MM = 2.0  # voxels of the lesion map of a SPECT are divided until none is longer
