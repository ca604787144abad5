"""The protocol as data: no I/O, no clock, no store."""
