"""From files of a run to plots and tables. Imports no torch."""
