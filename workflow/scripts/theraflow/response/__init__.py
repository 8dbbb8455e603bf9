"""Response to therapy: PERCIST 1.0 and RECIST 1.1.

- `percist`, `recist`: the published rules as functions of numbers.
- `reference`: the sphere in the liver and the cylinder in the aorta that PERCIST compares with.
- `visit`: what one scan tells.
- `stage`: `assess_response`, which takes the numbers from the table of lesions.
"""

from theraflow.response.percist import Reference, Response, lean_body_mass_kg, percist
from theraflow.response.recist import (
    Measured,
    Overall,
    best_response,
    choose_targets,
    confirmed_best_response,
    recist,
)
from theraflow.response.reference import blood_pool_cylinder, liver_sphere
from theraflow.response.stage import CRITERIA, RESPONSE_COLUMNS, assess_response

__all__ = [
    "CRITERIA",
    "RESPONSE_COLUMNS",
    "Measured",
    "Overall",
    "Reference",
    "Response",
    "assess_response",
    "best_response",
    "blood_pool_cylinder",
    "choose_targets",
    "confirmed_best_response",
    "lean_body_mass_kg",
    "liver_sphere",
    "percist",
    "recist",
]
