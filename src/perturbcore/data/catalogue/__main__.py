"""Print the table of data licences: ``python -m perturbcore.data.catalogue > DATA_LICENSES.md``."""

from perturbcore.data.catalogue import licences_markdown

if __name__ == "__main__":
    print(licences_markdown(), end="")
