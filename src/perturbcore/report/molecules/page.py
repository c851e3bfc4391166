"""What the chapter on small molecules shows in several pieces: the molecules, further data sets."""

from perturbcore.report import pages, summary
from perturbcore.report.molecules.report import molecule_counts, molecule_report, said, to_look_at
from perturbcore.report.molecules.sentences import answer, columns, known_targets_said, twins_said
from perturbcore.report.molecules.signal import drugs_of

LOOK = {
    "drug": "Drug",
    "problem": "Unreadable because",
    "removed": "Beside the parent",
    "same_molecule": "Same molecule as",
    "same_parent": "Same but for salt",
    "stereo_isomer": "Same but for stereo",
}


def molecules(chapter, data, targets_from: str = "") -> None:
    """Show the report of a data set's molecules: counts, drugs to look at, sentences.

    Parameters
    ----------
    chapter : OpenChapter
    data : Dataset
        With ``extras["drugs"]``; otherwise a sentence says that there are no SMILES.
    targets_from : str
        Drug table of the catalogue to look targets up in, where the data set names none.
    """
    drugs = drugs_of(data)
    if drugs is None:
        pages.say(
            f"{data.title} brings vectors of its drugs, but no SMILES in this project's layout: there is no "
            "molecule to check here."
        )
        return
    report = molecule_report(drugs)
    pages.say(said(report))
    pages.say(twins_said(report, data.responses))
    pages.show_table(
        chapter,
        molecule_counts(report),
        "molecules",
        digits=2,
        caption="What rdkit made of the SMILES.",
    )
    pages.show_table(
        chapter,
        to_look_at(report),
        "molecules-to-look-at",
        keep=LOOK,
        caption="Drugs to look at (the file has all).",
    )
    if targets_from and not (drugs["targets"] != "").any():
        from perturbcore.embeddings.sources import BuildContext, find_source

        source = find_source({"name": "targets", "source": targets_from}, "drugs", BuildContext())
        pages.say(known_targets_said(report, source.read(), source.label.split(" [")[0]))


def further(
    chapter, study, names, models, *, protocol, n_outer: int, n_inner: int, seed: int
) -> None:
    """Rank the embeddings on further data sets of drugs, a table each.

    Parameters
    ----------
    chapter : OpenChapter
    study : Study
    names : list of str
        Data sets of the profile.
    models, protocol, seed
        See `perturbcore.book.study.Study.evaluate`.
    n_outer, n_inner : int
        See `perturbcore.book.study.Study.ceiling`.
    """
    for name in names:
        limit = study.ceiling(name, n_outer=n_outer, n_inner=n_inner)
        scores = study.evaluate(name, models, protocol=protocol, ceiling=limit, seed=seed)
        told = summary.headline(scores, "L2")
        pages.say(answer(told, study.dataset(name)))
        pages.show_table(
            chapter,
            summary.ranking_table(scores, "L2"),
            f"ranking-{name}",
            keep=columns(told),
            bold="with_best",
            caption=f"{study.dataset(name).title}, all cell lines, k nearest neighbours.",
        )
