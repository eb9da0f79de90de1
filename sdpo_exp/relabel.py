"""`python -m sdpo_exp.relabel`: pairs in a new order, by the scores of one metric or more."""

from sdpo_exp.cli.relabel.relabel import main

if __name__ == "__main__":
    main()
