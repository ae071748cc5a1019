"""`python -m local_test`."""

from local_test.cli import main

if __name__ == "__main__":
    main()
