"""The real book, from the mirrored files, with less work in every chapter."""

import pytest
import yaml
from books import build, check_pages
from toys import smaller


@pytest.mark.book
def test_every_page_of_the_real_book_opens_without_a_complaint(mirror, browser, tmp_path):
    quick = tmp_path / "quick.yml"
    quick.write_text(yaml.safe_dump(smaller("real", "quick.yml"), sort_keys=False))
    check_pages(browser, build(str(quick), tmp_path), "The cells on these pages are real.")
