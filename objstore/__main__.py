"""`python -m objstore` is the command `objstore`."""

from objstore.cli.main import main

if __name__ == "__main__":
    main(prog_name="objstore")
