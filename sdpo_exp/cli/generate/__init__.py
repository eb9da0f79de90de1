"""Drawing images: of one prompt for a look, of a prompt set for scoring."""
