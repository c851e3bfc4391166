"""The real book, from the mirrored files, in a working folder, with less work in every chapter."""

import pytest
import yaml
from books import build, check_pages
from toys import smaller

from perturbcore.book.start import write_start


@pytest.mark.book
def test_every_page_of_the_real_book_opens_without_a_complaint(mirror, browser, tmp_path):
    quick, folder = tmp_path / "quick.yml", tmp_path / "mine"
    quick.write_text(yaml.safe_dump(smaller("real", "quick.yml"), sort_keys=False))
    write_start(folder)
    html = build(str(quick), tmp_path, folder)
    check_pages(browser, html, "The cells on these pages are real.")
