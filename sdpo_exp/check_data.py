"""`python -m sdpo_exp.check_data`: find the rows of a data set that cannot be trained on."""

from sdpo_exp.cli.data.check_data import main

if __name__ == "__main__":
    main()
