"""Verbs about chapters and the book.

Everything heavy is imported inside the verbs, so that help answers at once.
"""

import perturbcore as pc
from perturbcore.core.errors import DownloadError, InputError, ParameterError


def start(options) -> None:
    """Write the chapters, profiles and pages of the book into a folder, to change and to run."""
    from perturbcore.book.start import write_start

    print(f"{len(write_start(options.folder))} files; go on with: cd {options.folder} && make book")


def run(options) -> None:
    """Execute one chapter."""
    from perturbcore.book.runner import run_aside, run_for_book
    from perturbcore.book.source import find_chapter
    from perturbcore.core.files import check_output

    chapter, profile = find_chapter(options.chapter), pc.load_profile(options.profile)
    if (options.for_book or options.update) and (options.p or options.out):
        raise ParameterError("--for-book takes its values from the profile: no -p, no --out")
    if options.out:
        check_output(options.out, (".ipynb",), [chapter.path], force=True)
    if options.for_book:
        print(run_for_book(chapter, profile, update=options.update))
    else:
        print(run_aside(chapter, profile, dict(options.p), options.out))


def notebook(options) -> None:
    """Write chapters as plain notebooks for papermill or Jupyter."""
    import nbformat

    from perturbcore.book.source import find_chapter, find_chapters
    from perturbcore.core.files import replaced

    if bool(options.chapter) == options.all:
        raise ParameterError("name a chapter, or give --all")
    chapters = find_chapters() if options.all else [find_chapter(options.chapter)]
    for chapter in chapters:
        path = options.out / f"{chapter.name}.ipynb" if options.all else options.out
        with replaced(path) as partial:
            nbformat.write(chapter.notebook, partial)
        print(path)


def chapters(options) -> None:
    """List chapters and their parameters."""
    from perturbcore.book.source import find_chapters

    for chapter in find_chapters():
        print(f"{chapter.name}: {chapter.title}")
        for p in chapter.parameters.values():
            print(f"    {p.name}: {p.type} = {p.default!r}" + (f"  # {p.help}" if p.help else ""))


def rules(options) -> None:
    """Write what Make must know of a profile: a stamp per chapter, and their order."""
    from perturbcore.book.rules import write_rules

    write_rules(pc.load_profile(options.profile))


def responses(options) -> None:
    """Make the responses of a profile's data sets where they are not made yet."""
    from perturbcore.data.stored import open_dataset

    profile = pc.load_profile(options.profile)
    for name in options.name or [entry.name for entry in profile.datasets]:
        entry = profile.dataset(name)
        try:
            open_dataset(name, entry.loader, entry.options, profile.results / "responses")
        except (InputError, DownloadError) as error:
            # a chapter that needs it says so again; the others need not wait for it
            print(f"{name}: not made: {error}")


def book(options) -> None:
    """Build the HTML book from executed chapters."""
    from perturbcore.book import build as builder

    profile = pc.load_profile(options.profile)
    page = builder.build(profile)
    print(f"seconds per chapter (as they ran last):\n{builder.seconds_table(profile)}")
    print(f"built {page}")
