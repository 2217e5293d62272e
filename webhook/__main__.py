"""`python -m webhook` is the command line."""

from webhook.cli import main

if __name__ == "__main__":
    main()
