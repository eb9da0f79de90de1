"""The W&B workspace as a command."""
