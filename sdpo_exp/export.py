"""`python -m sdpo_exp.export`: a run's checkpoint as files that other programs load."""

from sdpo_exp.cli.export.export import main

if __name__ == "__main__":
    main()
