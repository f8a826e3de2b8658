"""A start for scale and location that is taken from data."""

from agileact.calibration._calibrate import calibrate as calibrate
from agileact.calibration._report import CalibratedSite as CalibratedSite
from agileact.calibration._report import CalibrationReport as CalibrationReport

__all__ = ["CalibratedSite", "CalibrationReport", "calibrate"]
