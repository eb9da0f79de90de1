"""`python -m sdpo_exp.sample_pairs`: preference pairs from the base model's own samples."""

from sdpo_exp.cli.data.sample_pairs import main

if __name__ == "__main__":
    main()
