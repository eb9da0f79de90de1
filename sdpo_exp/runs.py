"""`python -m sdpo_exp.runs`: what runs there are, the best of them, and how two differ."""

from sdpo_exp.cli.runs.runs import main

if __name__ == "__main__":
    main()
