"""`python -m sdpo_exp.report`: run folders to one page, with tables beside it."""

from sdpo_exp.cli.runs.report import main

if __name__ == "__main__":
    main()
