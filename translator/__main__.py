"""`python -m translator`: the same as the command `translator`."""

from translator.cli import main

if __name__ == "__main__":
    main()
