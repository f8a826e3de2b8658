"""A start for scale and location that is taken from data."""

from agileact.calibration.calibrate import calibrate as calibrate
from agileact.calibration.report import CalibratedSite as CalibratedSite
from agileact.calibration.report import CalibrationReport as CalibrationReport

__all__ = ["CalibratedSite", "CalibrationReport", "calibrate"]
