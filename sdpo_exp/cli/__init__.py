"""Bodies of the commands. Importing this package loads no torch."""
