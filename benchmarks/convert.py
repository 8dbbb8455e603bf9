"""One conversion by one Python tool, as a process of its own: `python convert.py TOOL SERIES FOLDER IMAGE`."""

import sys


def main() -> None:
    """Convert the DICOM in FOLDER to IMAGE, with the tool's defaults."""
    tool, series, folder, image = sys.argv[1:]
    match tool:
        case "SimpleITK":
            import SimpleITK as sitk

            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
            sitk.WriteImage(reader.Execute(), image)
        case "dicom2nifti":
            import dicom2nifti

            dicom2nifti.dicom_series_to_nifti(folder, image)
        case "theraflow":
            from theraflow.dicom import import_ct, import_emission
            from theraflow.layout import Scan

            scan = Scan("P", "s", "FDG", "baseline", folder, "suv")
            if series == "ct":
                import_ct(scan, image)
            else:
                tracer = {"radiopharmaceutical": "[18F]FDG", "nuclide": "18F", "quantity": "suv"}
                import_emission(scan, tracer, image)
        case _:
            sys.exit(f"{tool} is no tool of this benchmark.")


if __name__ == "__main__":
    main()
