"""Response to therapy: PERCIST 1.0 and RECIST 1.1.

- `percist`, `recist`: the published rules as functions of numbers.
- `reference`: the sphere in the liver and the cylinder in the aorta that PERCIST compares with.
- `visit`: what one scan tells.
- `stage`: `assess_response`, which takes the numbers from the table of lesions.
- `contract`: what others read of it.
"""

from theraflow.on_demand import names_on_demand

__all__, __getattr__ = names_on_demand(
    __name__,
    {
        "contract": ["CRITERIA", "RESPONSE_COLUMNS"],
        "percist": ["Reference", "Response", "lean_body_mass_kg"],
        "recist": ["Measured", "Overall", "best_response", "choose_targets", "confirmed_best_response"],
        "reference": ["blood_pool_cylinder", "liver_sphere"],
        "stage": ["assess_response"],
    },
)
