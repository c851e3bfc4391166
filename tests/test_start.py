"""What a reader starts with: previews of links."""

from html.parser import HTMLParser

from toys import ROOT

from perturbcore.book.previews import preview, site

PAGE = """<html><head><title>Which is “best” — The book</title></head><body>
<article><h1>Which is best<a href="#x">#</a></h1><p>Why this is asked.</p>
<p><strong>In one line.</strong> <em>STRING</em> is best &amp; closes 40&nbsp;%.</p></article>"""


def tags(text: str) -> dict[str, str]:
    found, parser = {}, HTMLParser()
    parser.handle_startendtag = lambda _, a: found.update({(d := dict(a)).get("property", d.get("name")): d["content"]})  # fmt: skip
    parser.feed(text)
    return found


def test_a_link_shows_title_answer_and_picture(tmp_path):
    found = tags(preview(PAGE, "book/chapters/x.html", picture="_images/x.png", title="The book"))
    assert found["og:title"] == "Which is “best”" and found["og:site_name"] == "The book"
    assert found["og:description"] == found["description"] == "STRING is best & closes 40 %."
    assert found["og:image"] == "../../_images/x.png" and found["og:type"] == "article"
    assert "og:url" not in found
    plain = PAGE.replace("In one line.", "Else.").replace("asked.", "asked " + "again " * 99)
    found = tags(preview(plain, "index.html", base="https://book.org/"))
    assert (
        found["og:image"] == "https://book.org/_static/card.png" and found["og:type"] == "website"
    )
    assert found["og:url"] == "https://book.org/index.html"
    assert found["og:description"].startswith("Why this is asked again")
    assert len(found["og:description"]) <= 300 and found["og:description"].endswith("again…")
    config = tmp_path / "_config.yml"
    config.write_text("title: T\nhtml: {baseurl: https://book.org/b}\n")
    assert site(config) == ("T", "https://book.org/b/")
    assert site(ROOT / "_config.yml")[1] == "" and (ROOT / "book/_static/card.png").is_file()
