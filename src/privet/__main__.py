"""`python -m privet`: the same as `privet`."""

from privet.cli import main

# Workers are started by importing this module again under another name.
if __name__ == "__main__":
    main()
