"""What people see while a command runs: a live line, widths, colours, a reader who leaves."""
