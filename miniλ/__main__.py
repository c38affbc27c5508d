"""`python -m miniλ`: the command `minilambda`."""

from miniλ.cli.main import main

if __name__ == "__main__":
    main()
