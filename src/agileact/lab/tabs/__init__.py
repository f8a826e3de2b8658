"""The tabs of the lab: layout and callbacks."""
