"""`python -m sdpo_exp.compare`: models against a base, by the scores of the same prompts."""

from sdpo_exp.cli.compare.compare import main

if __name__ == "__main__":
    main()
