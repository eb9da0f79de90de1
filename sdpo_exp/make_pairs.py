"""`python -m sdpo_exp.make_pairs`: pairs from ranked or scored images of the same prompt."""

from sdpo_exp.cli.make_pairs.make_pairs import main

if __name__ == "__main__":
    main()
