"""`python -m ttca`: the same as the `ttca` command."""

from ttca.cli import main

if __name__ == "__main__":
    main()
