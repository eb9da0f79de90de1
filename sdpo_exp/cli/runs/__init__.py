"""Looking at run folders: the list of them, and the report."""
