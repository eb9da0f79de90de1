"""From scores of images to statements about models: pairing, statistics, comparison."""
