"""Response to therapy: PERCIST 1.0 and RECIST 1.1.

- `percist`, `recist`: the published rules as functions of numbers.
- `stage`: `assess_response`, which takes the numbers from the table of lesions.
"""

from theraflow.response.percist import Response, lean_body_mass_kg, percist
from theraflow.response.recist import Measured, choose_targets, recist
from theraflow.response.stage import CRITERIA, RESPONSE_COLUMNS, assess_response

__all__ = [
    "CRITERIA",
    "RESPONSE_COLUMNS",
    "Measured",
    "Response",
    "assess_response",
    "choose_targets",
    "lean_body_mass_kg",
    "percist",
    "recist",
]
