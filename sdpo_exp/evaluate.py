"""`python -m sdpo_exp.evaluate`: scores of a model's images of a prompt set."""

from sdpo_exp.cli.evaluate.evaluate import main

if __name__ == "__main__":
    main()
