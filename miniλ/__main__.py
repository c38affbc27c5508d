"""python -m miniλ: the same as the command minilambda."""

from miniλ.cli.main import main

if __name__ == "__main__":
    main()
