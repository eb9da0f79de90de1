"""Run folders to one page: read, group into cells, compare, draw. Files alone, and no torch."""
