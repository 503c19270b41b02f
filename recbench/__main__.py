"""``python -m recbench``: the command ``recbench``, where its folder is not on the PATH."""

from recbench.cli.app import main

if __name__ == "__main__":
    main()
