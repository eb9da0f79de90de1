"""Images from prompts: repeatable draws from a pipeline, and the folder that they are kept in."""
