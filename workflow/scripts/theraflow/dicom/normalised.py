"""The PET in another kind of SUV than that by body weight: by lean body mass, ideal weight or body surface."""

from pathlib import Path

import numpy as np

from theraflow.dicom.quantity.normalisation import NORMALISATIONS, refuse_unknown_kind
from theraflow.errors import TheraflowError
from theraflow.images import from_array, read_image, read_sidecar, to_array, write_image


def normalise_pet(pet: Path | str, kind: str, output: Path | str) -> None:
    """Write the image of another kind of SUV, with a sidecar of its own.

    Args:
        pet: `pet.nii.gz` in SUV by body weight, with the sidecar that its import has written.
        kind: SUVType (0054,1006): LBMJANMA, LBMJAMES128, LBM, IBW or BSA.
        output: the image to write, float32, on the same grid.

    Raises:
        TheraflowError: an unknown kind; an image that is not in SUV by body weight; weight, height or sex missing.
    """
    refuse_unknown_kind(kind)
    sidecar = read_sidecar(pet)
    found = (sidecar.get("suv") or {}).get("normalisations")
    if sidecar.get("quantity") != "SUVbw" or found is None:
        raise TheraflowError(f"{pet} is no PET in SUV by body weight that theraflow has imported; import it again.")
    factor, reason = found[kind]["factor"], found[kind]["reason"]
    if factor is None:
        raise TheraflowError(f"{pet}: {NORMALISATIONS[kind].quantity} cannot be computed; {reason}.")
    image = read_image(pet)
    normalised = from_array(to_array(image) * np.float32(factor), like=image)
    write_image(
        normalised,
        output,
        {
            **sidecar,
            "quantity": NORMALISATIONS[kind].quantity,
            "unit": NORMALISATIONS[kind].unit,
            "suv": {**sidecar["suv"], "suv_type": kind, "factor_from_suvbw": factor},
        },
    )
