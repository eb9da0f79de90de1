"""`python -m sdpo_exp.dashboard`: the W&B workspace of runs, from code."""

from sdpo_exp.cli.dashboard.dashboard import main

if __name__ == "__main__":
    main()
