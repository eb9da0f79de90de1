"""`python -m sdpo_exp.prepare`: frozen work of a training, done once: latents and text states."""

from sdpo_exp.cli.prepare.prepare import main

if __name__ == "__main__":
    main()
