"""`python -m benchmarks`: see `benchmarks.ratios`."""

from benchmarks.ratios import main  # its functions run in processes that do not import this module

if __name__ == "__main__":
    main()
