"""The machine: processes, devices, files, streams. Knows no pictures."""
