"""Watch scale and location over training: their range by layer, dead, saturated and sign-flipped units, alerts."""

from agileact.monitor.alerts import MonitorWarning as MonitorWarning
from agileact.monitor.monitor import Monitor as Monitor
from agileact.monitor.records import Record as Record

__all__ = ["Monitor", "MonitorWarning", "Record"]
