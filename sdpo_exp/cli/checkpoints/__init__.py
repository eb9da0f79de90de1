"""From what a user names to an opened model; shared by the commands that take one."""
