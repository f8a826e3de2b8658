"""Watch scale and location over training: their range by layer, dead, saturated and sign-flipped units, alerts."""

from agileact.monitor._alerts import MonitorWarning as MonitorWarning
from agileact.monitor._monitor import Monitor as Monitor
from agileact.monitor._records import Record as Record

__all__ = ["Monitor", "MonitorWarning", "Record"]
