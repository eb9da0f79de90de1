"""`python -m sdpo_exp.pretrain`: train the embedded world's base model."""

from sdpo_exp.cli.data.pretrain import main

if __name__ == "__main__":
    main()
