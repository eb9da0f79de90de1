"""`python -m sdpo_exp.generate`: images from a prompt, by a tuned model or the base."""

from sdpo_exp.cli.generate.generate import main

if __name__ == "__main__":
    main()
