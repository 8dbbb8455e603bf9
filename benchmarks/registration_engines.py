"""Registration engines, each from images on disk to a map on disk: the processes that register_ct.py measures.

    python registration_engines.py ENGINE FOLDER THREADS

FOLDER holds two CTs in HU, `reference.nii.gz` and `moved.nii.gz`. Engines in theraflow's environment:

- `bodies` finds the patient in both and writes `reference.mha` and `moved.mha`: 3 mm, nothing but the body, HU + 1000,
  so that air is 0;
- `rigid` does so too and writes theraflow's rigid map, `rigid.tfm`;
- `theraflow` writes `to_scan.h5` and `to_reference.h5`, from the CTs.

The others work in the environment of peers.txt, on what `bodies` has written, those named `..._from_rigid` on what
`rigid` has written. They write `ENGINE.mha`: the vector u (mm, LPS) at point x on the grid of `reference.mha` says that
x + u belongs to x.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

BODY_MM = 3.0
AIR_HU = -1000.0
CROP_VOXELS = 4  # left around the body, where the CT reaches so far
# greedy's correlation in cubes of 5 voxels, 100 iterations at 12 mm, 50 at 6 mm and 10 at 3 mm, its own smoothing.
GREEDY = "-d 3 -float -m NCC 2x2x2 -n 100x50x10 -seed 5 -V 0"
BENDING = 20.0  # weight of elastix' bending energy beside the correlation
HU_POINTS, LEVEL_POINTS = (-1000.0, -200.0, 300.0, 1300.0), (-300.0, -200.0, 300.0, 400.0)
DEMONS_LEVELS = ((12.0, 60), (6.0, 24))  # voxel size in mm, iterations
BSPLINE_MM, BSPLINE_SHARE = 30.0, 0.05  # distance of the knots; share of the voxels that are read


def bodies(folder: Path, threads: int) -> None:
    """theraflow's search for the patient."""
    _bodies(folder, threads)


def rigid(folder: Path, threads: int) -> None:
    """theraflow's rigid registration."""
    from theraflow.registration.rigid import align_bodies
    from theraflow.registration.threads import limited_threads

    found = _bodies(folder, threads)
    with limited_threads(threads):
        sitk.WriteTransform(align_bodies(*found), str(folder / "rigid.tfm"))


def theraflow(folder: Path, threads: int) -> None:
    """theraflow's registration of two CTs, both directions, without the measures of its quality."""
    from theraflow.images import read_image
    from theraflow.images.body import find_body
    from theraflow.registration import write_transform
    from theraflow.registration.deformable import as_transform, deform, invert
    from theraflow.registration.rigid import align_bodies
    from theraflow.registration.stage import BODY_MM
    from theraflow.registration.threads import limited_threads

    with limited_threads(threads):
        found = [find_body(read_image(folder / f"{name}.nii.gz"), BODY_MM) for name in ("reference", "moved")]
        aligned = align_bodies(*found)
        field = deform(*found, aligned)
        inverse = invert(field)
    write_transform(sitk.CompositeTransform([aligned, as_transform(field)]), folder / "to_scan.h5")
    write_transform(sitk.CompositeTransform([as_transform(inverse), aligned.GetInverse()]), folder / "to_reference.h5")


def greedy(folder: Path, threads: int) -> None:
    """greedy alone: its rigid registration from the centres of the images, then local correlation."""
    from picsl_greedy import Greedy3D

    engine, images = Greedy3D(), {"fixed": _read(folder, "reference"), "moving": _read(folder, "moved")}
    command = f"{GREEDY} -threads {threads} -i fixed moving"
    engine.execute(f"{command} -a -dof 6 -ia-image-centers -o rigid", **images, rigid=None)
    engine.execute(f"{command} -it rigid -o warp", warp=None)
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])  # greedy's matrices are in RAS
    matrix = turned @ np.array(engine["rigid"]) @ turned
    aligned = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    _write(folder, "greedy", [aligned, _as_transform(engine["warp"])])


def greedy_from_rigid(folder: Path, threads: int) -> None:
    """greedy's local correlation after theraflow's rigid registration."""
    from picsl_greedy import Greedy3D

    engine, (fixed, moving, aligned) = Greedy3D(), _aligned(folder)
    engine.execute(f"{GREEDY} -threads {threads} -i fixed moving -o warp", fixed=fixed, moving=moving, warp=None)
    _write(folder, "greedy_from_rigid", [aligned, _as_transform(engine["warp"])])


def elastix(folder: Path, threads: int) -> None:
    """itk-elastix alone: rigid from the centres of gravity, then B-splines with bending energy."""
    fixed, moving = _read(folder, "reference"), _read(folder, "moved")
    _write(folder, "elastix", [_elastix(fixed, moving, threads, own_rigid=True)])


def elastix_from_rigid(folder: Path, threads: int) -> None:
    """itk-elastix' B-splines after theraflow's rigid registration."""
    fixed, moving, aligned = _aligned(folder)
    _write(folder, "elastix_from_rigid", [aligned, _elastix(fixed, moving, threads, own_rigid=False)])


def demons_from_rigid(folder: Path, threads: int) -> None:
    """SimpleITK's demons, coarse to fine, after theraflow's rigid registration."""
    fixed, moving, aligned = _aligned(folder)
    field = None
    for spacing_mm, iterations in DEMONS_LEVELS:
        size = [max(1, round(n * s / spacing_mm)) for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
        grid = _covering(fixed, size)
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(2.0)
        # Images are smoothed to the voxels in which they are read, as by averaging.
        levels = [
            sitk.Resample(sitk.SmoothingRecursiveGaussian(_levels(image), spacing_mm / 3), grid)
            for image in (fixed, moving)
        ]
        field = demons.Execute(*levels, sitk.Resample(field, grid)) if field else demons.Execute(*levels)
    _write(folder, "demons_from_rigid", [aligned, _as_transform(field)])


def bspline_from_rigid(folder: Path, threads: int) -> None:
    """SimpleITK's B-splines by correlation, without a penalty, after theraflow's rigid registration."""
    fixed, moving, aligned = _aligned(folder)
    knots = [max(1, round(n * s / BSPLINE_MM)) for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    transform = sitk.BSplineTransformInitializer(fixed, knots)
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsCorrelation()
    registration.SetMetricSamplingStrategy(registration.REGULAR)
    registration.SetMetricSamplingPercentage(BSPLINE_SHARE, 5)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetShrinkFactorsPerLevel([4, 2])
    registration.SetSmoothingSigmasPerLevel([6.0, 3.0])
    registration.SetOptimizerAsLBFGSB(1e-5, 40)
    registration.SetInitialTransform(transform, inPlace=True)
    registration.Execute(_levels(fixed), _levels(moving))
    _write(folder, "bspline_from_rigid", [aligned, transform])


ENGINES: dict[str, Callable[[Path, int], None]] = {
    engine.__name__: engine
    for engine in (bodies, rigid, theraflow, greedy, greedy_from_rigid, elastix, elastix_from_rigid,
                   demons_from_rigid, bspline_from_rigid)
}  # fmt: skip


def _bodies(folder: Path, threads: int) -> list:
    """The bodies in both CTs (`theraflow.images.body.Body`); the images are written, close around them, too."""
    from theraflow.images import read_image, resample
    from theraflow.images.body import find_body
    from theraflow.registration.rigid import IDENTITY, common_grid
    from theraflow.registration.threads import limited_threads

    with limited_threads(threads):
        found = {name: find_body(read_image(folder / f"{name}.nii.gz"), BODY_MM) for name in ("reference", "moved")}
        for name, body in found.items():
            shape = sitk.LabelShapeStatisticsImageFilter()
            shape.Execute(body.mask)
            box = shape.GetBoundingBox(1)
            first = [max(0, start - CROP_VOXELS) for start in box[:3]]
            last = [min(n, a + b + CROP_VOXELS) for n, a, b in zip(body.mask.GetSize(), box[:3], box[3:], strict=True)]
            part = sitk.RegionOfInterest(body.image, [b - a for a, b in zip(first, last, strict=True)], first)
            small = resample(part, common_grid([part], [IDENTITY], BODY_MM), outside=AIR_HU)
            sitk.WriteImage(small - AIR_HU, str(folder / f"{name}.mha"))
    return list(found.values())


def _read(folder: Path, name: str) -> sitk.Image:
    return sitk.ReadImage(str(folder / f"{name}.mha"))


def _aligned(folder: Path) -> tuple[sitk.Image, sitk.Image, sitk.Transform]:
    """The reference; the moved image laid on it by theraflow's rigid map, in its header alone; that map."""
    fixed, moving = _read(folder, "reference"), _read(folder, "moved")
    aligned = sitk.Euler3DTransform(sitk.ReadTransform(str(folder / "rigid.tfm")))
    back = aligned.GetInverse()
    turn = np.array(aligned.GetMatrix()).reshape(3, 3).T
    moving.SetOrigin(back.TransformPoint(moving.GetOrigin()))
    moving.SetDirection((turn @ np.array(moving.GetDirection()).reshape(3, 3)).ravel().tolist())
    return fixed, moving, aligned


def _levels(image: sitk.Image) -> sitk.Image:
    """Grey levels from air as 0: full contrast in soft tissue, an eighth of it in lung, a tenth in dense bone."""
    hu = sitk.GetArrayFromImage(image) + AIR_HU
    levels = sitk.GetImageFromArray((np.interp(hu, HU_POINTS, LEVEL_POINTS) - LEVEL_POINTS[0]).astype(np.float32))
    levels.CopyInformation(image)
    return levels


def _covering(image: sitk.Image, size: list[int]) -> sitk.Image:
    """An empty grid of `size` voxels that covers exactly `image`."""
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing([n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)])
    grid.SetDirection(image.GetDirection())
    first = [0.5 * n / m - 0.5 for n, m in zip(image.GetSize(), size, strict=True)]
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(first))
    return grid


def _as_transform(field: sitk.Image) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _elastix(fixed: sitk.Image, moving: sitk.Image, threads: int, own_rigid: bool) -> sitk.Transform:
    """The map from points of the fixed to points of the moving image that itk-elastix finds."""
    import itk

    images = []
    for image in (fixed, moving):
        copy = itk.image_from_array(sitk.GetArrayFromImage(image).astype(np.float32))
        copy.SetSpacing(image.GetSpacing())
        copy.SetOrigin(image.GetOrigin())
        copy.SetDirection(itk.matrix_from_array(np.array(image.GetDirection()).reshape(3, 3)))
        images.append(copy)
    common = {
        "NumberOfSpatialSamples": ["3000"], "NewSamplesEveryIteration": ["true"], "ImageSampler": ["RandomCoordinate"],
        "RequiredRatioOfValidSamples": ["0.05"], "RandomSeed": ["5"], "WriteResultImage": ["false"],
        "NumberOfJacobianMeasurements": ["5000"], "DefaultPixelValue": ["0"],
        "AutomaticTransformInitialization": ["false"],
        # more than one metric ends in a segmentation fault otherwise (itk-elastix 0.25.4)
        "UseMultiThreadingForMetrics": ["false"],
    }  # fmt: skip
    parameters = itk.ParameterObject.New()
    if own_rigid:
        first = parameters.GetDefaultParameterMap("rigid", 3)
        for key, value in common.items():
            first[key] = value
        first["Metric"] = ["AdvancedNormalizedCorrelation"]
        first["MaximumNumberOfIterations"] = ["200"]
        first["AutomaticTransformInitialization"] = ["true"]
        first["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
        parameters.AddParameterMap(first)
    second = parameters.GetDefaultParameterMap("bspline", 3)
    for key, value in common.items():
        second[key] = value
    second["Registration"] = ["MultiMetricMultiResolutionRegistration"]
    second["Metric"] = ["AdvancedNormalizedCorrelation", "TransformBendingEnergyPenalty"]
    second["Metric0Weight"], second["Metric1Weight"] = ["1"], [str(BENDING)]
    second["FinalGridSpacingInPhysicalUnits"] = ["15"]
    second["MaximumNumberOfIterations"] = ["200"]
    parameters.AddParameterMap(second)
    # without a log on the console it ends in a segmentation fault (itk-elastix 0.25.4)
    _, found = itk.elastix_registration_method(
        *images, parameter_object=parameters, log_to_console=True, number_of_threads=threads
    )
    vectors = itk.array_from_image(itk.transformix_deformation_field(images[1], found))
    field = sitk.GetImageFromArray(vectors.astype(np.float64), isVector=True)
    field.CopyInformation(fixed)
    return _as_transform(field)


def _write(folder: Path, name: str, maps: list[sitk.Transform]) -> None:
    """Write what several maps, the last applied first, move the points of the reference by."""
    grid = _read(folder, "reference")
    field = sitk.TransformToDisplacementField(
        sitk.CompositeTransform(maps), sitk.sitkVectorFloat32, grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(),
        grid.GetDirection(),
    )  # fmt: skip
    sitk.WriteImage(field, str(folder / f"{name}.mha"))


if __name__ == "__main__":
    name, folder, threads = sys.argv[1:]
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(int(threads))
    os.chdir(folder)  # transformix leaves a file where it runs
    ENGINES[name](Path.cwd(), int(threads))
