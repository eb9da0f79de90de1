"""`python -m sdpo_exp`: train."""

from sdpo_exp.cli.train.train import main

if __name__ == "__main__":
    main()
