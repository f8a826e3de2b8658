"""A start for scale and location that is taken from data."""

from agileact.calibration.calibrate import CalibratedSite as CalibratedSite
from agileact.calibration.calibrate import CalibrationReport as CalibrationReport
from agileact.calibration.calibrate import calibrate as calibrate

__all__ = ["CalibratedSite", "CalibrationReport", "calibrate"]
