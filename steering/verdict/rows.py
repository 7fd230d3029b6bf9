"""The tidy row of an estimate."""

from probes.measurements import point, row

__all__ = ["point", "row"]
