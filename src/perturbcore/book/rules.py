"""What Make must know: which chapter depends on what, as one stamp per chapter and a few rules."""

from collections import Counter
from pathlib import Path

from perturbcore.book.source import Chapter, absent, find_chapters, published
from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.profile import Profile, project_root
from perturbcore.data.catalogue import hash_of

# builders are found by name: who builds embeddings depends on every family of them
_REGISTRY = "perturbcore.embeddings.registry"
_OPENS_DATA = "perturbcore.data.stored"
_FAMILIES = Path(__file__).parents[1] / "embeddings"


def write_rules(profile: Profile) -> Path:
    """Write the stamps of a profile and ``results/<profile>/rules.mk``, each only if it changed."""
    there = {c.name: c for c in find_chapters()}
    names = published()
    if missing := [n for n in names if n not in there]:
        raise ParameterError(f"_toc.yml names chapters that notebooks/ does not have: {missing[0]}")
    profile.claim_results()
    out = profile.results
    gone = absent(profile)
    sets = [entry.name for entry in profile.datasets if entry.name not in gone]
    # Make starts them in this order and comes back to one that had to wait only after all others:
    # last those that wait for others, in both parts the awaited first
    waiting = Counter(other for name in names for other in there[name].after)
    order = sorted(names, key=lambda name: (bool(there[name].after), -waiting[name]))
    rules = [f"CHAPTERS := {' '.join(order)}", f"DATASETS := {' '.join(sets)}"]
    for entry in profile.datasets:
        _update(out / "stamps" / f"data-{entry.name}", _data(entry))
    for name in names:
        chapter = there[name]
        for other in chapter.after:
            if other not in names:
                raise ParameterError(f"{chapter.path}: after: the book has no chapter '{other}'")
        if not (out / "runs" / f"{name}.json").is_file():  # its last run was cut off
            (out / "stamps" / name).unlink(missing_ok=True)
        # what a chapter says, and how its cells are shown
        cells = [[c.source, c.metadata] for c in chapter.notebook.cells]
        prose = digest(cells, chapter.header.model_dump())
        _update(out / "stamps" / name, f"{code_stamp(chapter, profile)} {prose}")
        notes = " ".join(f"$(OUT)/runs/{other}.json" for other in chapter.after)
        if sets and _OPENS_DATA in chapter.modules:
            notes += " | $(OUT)/responses/all.ready"
        rules.append(f"$(OUT)/chapters/{name}.ipynb: $(OUT)/stamps/{name} {notes}".rstrip())
    pages = [code_digest("perturbcore.book.build"), profile.title, profile.summary]
    _update(out / "stamps" / "book", digest(pages, profile.digest))
    path = out / "rules.mk"
    _update(path, "\n".join(rules))
    return path


def code_stamp(chapter: Chapter, profile: Profile) -> str:
    """Digest of all that a chapter's results depend on."""
    modules = chapter.modules
    if _REGISTRY in modules:
        modules = modules | {
            f"perturbcore.embeddings.{p.stem}" for p in _FAMILIES.glob("[a-z]*.py")
        }
    about = [profile.title, profile.summary, profile.simulated, list(profile.data)]
    about += [profile.inner_order, profile.lasso_tolerance, absent(profile), profile.models]
    about.append(chapter.missing(profile))
    data = [_data(entry) for entry in profile.datasets]
    specs = [[spec, _file(spec.get("file"), profile)] for spec in profile.embeddings]
    pins = project_root() / "constraints.txt"
    pinned = pins.read_text() if pins.is_file() else ""
    code = code_digest(*sorted(modules)) if modules else ""
    return digest(chapter.code, chapter.values(profile), code, about, data, specs, pinned)


def _data(entry) -> str:
    given = [p for v in entry.options.values() for p in (v if isinstance(v, list) else [v])]
    files = [_file(value) for value in given]
    code = code_digest(f"perturbcore.data.sets.{entry.loader}")
    return digest(entry.name, entry.loader, dict(entry.options), code, files)


def _file(value, profile: Profile | None = None) -> list:
    path = Path(value).expanduser() if isinstance(value, str) else None
    if path is not None and profile is not None and not path.is_absolute():
        path = profile.path.parent / path
    return [hash_of(path)] if path is not None and path.is_file() else []


def _update(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text + "\n":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")


def unchanged(chapter: Chapter, profile: Profile, executed: Path) -> bool:
    """Whether an executed chapter still holds: same code, same inputs, nothing before it newer."""
    import nbformat

    if not executed.is_file():
        return False
    kept = nbformat.read(executed, as_version=4).metadata.get("perturbcore", {})
    ours = profile.results / "runs" / f"{chapter.name}.json"
    before = [profile.results / "runs" / f"{name}.json" for name in chapter.after]
    newer = [p for p in before if p.is_file() and p.stat().st_mtime > ours.stat().st_mtime]
    return kept.get("stamp") == code_stamp(chapter, profile) and not newer
