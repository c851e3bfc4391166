"""Small molecules: what a screen and its SMILES carry, and which embedding finds it."""

import numpy as np
import pandas as pd
from rdkit import Chem
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr, zscore

from perturbcore.data.effects import pseudobulk, well_effects
from perturbcore.data.molecules.structures import canonical, parent_of, parse, stereo_count
from perturbcore.data.published.tables import facts
from perturbcore.embeddings.sources import BuildContext, find_source
from perturbcore.report import pages
from perturbcore.report.comparison import Comparison
from perturbcore.report.noise import by_line, line_summary
from perturbcore.report.published.claims.printed import read_off
from perturbcore.report.published.figures import figure_data
from perturbcore.report.text import HEADINGS, percent, tell

NOISE = HEADINGS["drug noise"]
BY_CHANCE = 0.05
FEWEST = 4


def truth_of(data):
    """Return the true effects of a simulated screen, or None."""
    return getattr((data.extras or {}).get("simulation"), "true_effects", None)


def beyond_noise(data, ceiling: pd.DataFrame | None) -> pd.DataFrame:
    """Compare the size of each drug's effect with its own experimental error, per cell line."""
    if ceiling is None:
        return pd.DataFrame(columns=["cell_line", "drugs", "effect", "error", "beyond"])
    names = {"perturbations": "drugs", "effect_median": "effect", "error_median": "error"}
    found = line_summary(by_line(ceiling, data.responses))
    return found.rename(columns=names | {"share_above_error": "beyond"})


def plate_effects(data) -> pd.DataFrame | None:
    """Effect of each drug on each plate: its mean minus that of the plate's vehicle."""
    wells = data.replicates
    if wells is None and data.screen is not None:
        by = ["cell_line", "batch", "perturbation"]
        wells = pseudobulk(data.screen, by=by, progress=False)
    return None if wells is None else well_effects(wells)


def reproducibility(profiles: pd.DataFrame) -> pd.DataFrame:
    """Ask of each drug whether one half of its plates finds it again among all drugs on the other.

    The mean drug of each plate is taken away first. Per cell line: drugs (on two plates or more),
    same and other (mean correlation between halves, of a drug with itself and with others),
    reproducible (share whose own correlation is above the 95 % quantile of the others).
    """
    rows = []
    for line, part in profiles.groupby(level="cell_line", sort=False):
        centred = part - part.groupby(level="batch").transform("mean")
        drugs = centred.groupby(level="perturbation")
        place, plates = drugs.cumcount(), drugs[centred.columns[0]].transform("size")
        halves = [
            centred[half & (plates > 1)].groupby(level="perturbation").mean()
            for half in (place < plates / 2, place >= plates / 2)
        ]
        n = len(halves[0])
        if n < FEWEST:
            continue
        with np.errstate(invalid="ignore"):
            r = np.nan_to_num(np.corrcoef(*halves)[:n, n:])
        own, other = np.diag(r), r[~np.eye(n, dtype=bool)]
        again = own > np.quantile(other, 1 - BY_CHANCE)
        rows.append((line, n, own.mean(), other.mean(), again.mean()))
    return pd.DataFrame(rows, columns=["cell_line", "drugs", "same", "other", "reproducible"])


def noise_table(data, ceiling: pd.DataFrame | None) -> pd.DataFrame:
    """Join `beyond_noise` and `reproducibility`, one row per cell line; missing where data are."""
    beyond, profiles = beyond_noise(data, ceiling), plate_effects(data)
    again = pd.DataFrame(columns=list(NOISE)) if profiles is None else reproducibility(profiles)
    if beyond.empty:
        return again.reindex(columns=list(NOISE))
    again = again.reindex(columns=["cell_line", "same", "other", "reproducible"])
    return beyond.merge(again, on="cell_line", how="left")[list(NOISE)]


def information(embeddings, data) -> pd.DataFrame:
    """Ask how well the distances of embeddings follow the true effects of a simulated screen.

    follows: Spearman's rank correlation, over pairs of drugs, of distance in the standardised
    embedding with one minus the correlation of the true effects. Empty without a truth.
    """
    truth = truth_of(data)
    if truth is None:
        return pd.DataFrame(columns=["embedding", "modality", "n", "follows"])
    if "inert" in truth.obs:
        truth = truth[~truth.obs["inert"].to_numpy(bool)]
    X = pd.DataFrame(np.asarray(truth.X, float))
    effect = X.groupby(truth.obs["perturbation"].astype(str).to_numpy()).mean()
    effect -= effect.mean()
    rows = []
    for e in embeddings:
        known = effect.index.intersection(e.ids)
        V = e.X[e.ids.get_indexer(known)].astype(float)
        if len(known) < FEWEST or not V.std(axis=0).any():
            continue
        V = zscore(V[:, V.std(axis=0) > 0])
        rho = spearmanr(pdist(V), pdist(effect.loc[known].to_numpy(), "correlation")).statistic
        rows.append((e.name, e.modality, len(known), float(rho)))
    table = pd.DataFrame(rows, columns=["embedding", "modality", "n", "follows"])
    return table.sort_values("follows", ascending=False, ignore_index=True)


def _mean(table: pd.DataFrame, column: str) -> float:
    known = table[table[column].notna()]
    return float(np.average(known[column], weights=known["drugs"])) if len(known) else float("nan")


def noise_said(data, table: pd.DataFrame) -> str:
    """Say how many drugs stand out: by replicates, by their own error, and by the truth."""
    again, beyond = (_mean(table, c) for c in ("reproducible", "beyond"))
    parts = []
    if np.isfinite(again):
        most = "Most drugs are near" if again < 0.5 else "Most drugs stand out from"
        same, other = (_mean(table, c) for c in ("same", "other"))
        about = dict(again=again, others=1 - BY_CHANCE, chance=BY_CHANCE, same=same, other=other)
        parts.append(tell("drugs.found_again", most=most, **about))
    if np.isfinite(beyond):
        medians = table[["effect", "error"]].median()
        parts.append(tell("drugs.beyond", beyond=beyond, **medians))
    truth, parts = truth_of(data), parts or [tell("drugs.no_replicates")]
    if truth is not None and "inert" in truth.obs:
        inert = truth.obs["inert"].to_numpy(bool)
        size = np.linalg.norm(np.asarray(truth.X, float), axis=1)
        parts.append(tell("drugs.truth", inert=inert.mean(), half=np.median(size[~inert])))
    return " ".join(parts)


def reading(c: Comparison, data) -> str:
    """Say what lies between No Change, the Train Mean, the experimental error and the truth."""
    measured, truth = data.responses, truth_of(data)
    if truth is None:
        return c.reading()
    X = np.asarray(truth[measured.obs_names, measured.var_names].X, float)
    error = np.linalg.norm(np.asarray(measured.X, float) - X, axis=1).mean()
    return f"{c.reading()} Predicting every true effect would score {error:.2f}."


def one_line(c: Comparison, table: pd.DataFrame, data) -> str:
    """Condense the answer of the chapter to one sentence; `table` is of `noise_table`."""
    drugs = data.responses.obs["perturbation"].nunique()
    said = f"On {drugs} drugs ({data.title}): {c.one_line()}"
    again, beyond = (_mean(table, column) for column in ("reproducible", "beyond"))
    if np.isfinite(again):
        return f"{said} {tell('drugs.again', again=again)}"
    return f"{said} {tell('drugs.larger', beyond=beyond)}" if np.isfinite(beyond) else said


def information_said(known: pd.DataFrame, c: Comparison) -> str:
    """Say whether the ranking is the order of what the embeddings know; `known`: `information`."""
    if known.empty:
        return tell("drugs.no_information")
    value = {c.methods.at[m, "embedding"]: c.means[m] for m in c.competitors}
    both = known[~known["modality"].str.endswith("control")]
    both = both.assign(value=both["embedding"].map(value)).dropna()
    good = c.sign * both["value"]
    test = spearmanr(both["follows"], good)
    by = both.groupby("modality")["follows"].median().sort_values(ascending=False)
    best = both.loc[good.idxmax(), "embedding"]
    agrees = "is" if test.pvalue < 0.05 and test.statistic > 0 else "is not distinguishably"
    medians = ", ".join(f"{m.lower()} {v:.2f}" for m, v in by.items())
    about = dict(medians=medians, best=best, n=len(both), test=test, agrees=agrees)
    return tell("drugs.information", first=both.iloc[0], **about)


def beside_said(c: Comparison, published) -> str:
    """Set the gain of the best embedding over Train Mean beside the published one on Sci-Plex."""
    figure = figure_data("S8", published)
    medians, names = figure.medians(), figure.select("single")
    gain = 1 - medians[names].min(axis=1) / medians["Train Mean"]
    each = ", ".join(f"{line} {percent(g, 1)}" for line, g in gain.items())
    here = 1 - c.means[c.best] / c.means[c.floor]
    return tell("drugs.beside", each=each, best=c.best, lower=here > 0, size=abs(here))


def tahoe_read_off() -> tuple[str, pd.DataFrame]:
    """Figures S5 and S6: what can be read off the images, and a sentence."""
    table = facts("cole2026_tahoe_lfc_read_off")
    parts = []
    for figure, estimator in table.groupby("figure", sort=False)["estimator"].first().items():
        seen = read_off(None, figure=figure)
        best = f"{seen.name.split(' (')[0]} {seen.best:.2f} against {seen.floor:.2f}"
        parts.append(f"{estimator}: {best}, {percent(seen.share)} of the gap")
    said = tell("drugs.read_off", each="; ".join(parts))
    return said, table.rename(columns={"display_name": "method"})


ENOUGH = 0.25
KINDS = HEADINGS["kinds of molecules"]


def molecule_report(drugs: pd.DataFrame) -> pd.DataFrame:
    """Check every SMILES of a table of drugs, and compare the drugs with each other.

    Each drug keeps its row: `smiles` (as given), `canonical`, `parent` (largest organic fragment,
    uncharged), `flat` (parent without stereo), `components`, `removed` (beside the parent),
    `stereo_open` (count), `problem` (why it cannot be read), and the other drugs that are
    `same_molecule`, `same_parent` or `stereo_isomer`, joined by semicolons.
    """
    rows = [_row(str(drug), str(smiles)) for drug, smiles in drugs["smiles"].items()]
    table = pd.DataFrame(rows).set_index("drug")
    table["same_molecule"] = _others(table, "canonical")
    table["same_parent"] = _others(table, "parent", differs="canonical")
    table["stereo_isomer"] = _others(table, "flat", differs="parent")
    return table


def _row(drug: str, smiles: str) -> dict:
    mol, problem = parse(smiles)
    row = {"drug": drug, "smiles": smiles, "problem": problem}
    row |= dict.fromkeys(("canonical", "parent", "flat", "removed"), "")
    row |= dict.fromkeys(("components", "stereo_open"), 0)
    if mol is None:
        return row
    whole, parent = canonical(smiles), parent_of(mol)
    parts, kept = whole.split("."), Chem.MolToSmiles(parent)
    own = [i for i, part in enumerate(parts) if canonical(part, parent=True) == kept][:1]
    return row | {
        "canonical": whole,
        "parent": kept,
        "flat": canonical(smiles, parent=True, stereo=False),
        "components": len(parts),
        "removed": ".".join(part for i, part in enumerate(parts) if i not in own),
        "stereo_open": stereo_count(parent)[1],
    }


def _others(table: pd.DataFrame, same: str, differs: str = "") -> list[str]:
    """Other drugs of equal `same` and unequal `differs`, of those that can be read."""
    groups = table[table["problem"] == ""].groupby(same).groups
    out = []
    for drug, row in table.iterrows():
        others = [] if row["problem"] else [o for o in groups[row[same]] if o != drug]
        kept = [o for o in others if not differs or table.at[o, differs] != row[differs]]
        out.append("; ".join(kept))
    return out


def _flags(report: pd.DataFrame) -> pd.DataFrame:
    """Which of `KINDS` each drug is."""
    report = report.assign(unreadable=report["problem"], salt=report["components"] > 1)
    return report[list(KINDS)].astype(bool)


def molecule_counts(report: pd.DataFrame) -> pd.DataFrame:
    """Count what `molecule_report` found: kind, drugs, share of all, examples, meaning."""
    flags = _flags(report)
    rows = [
        (kind.replace("_", " "), int(is_so.sum()), is_so.mean(), ", ".join(report.index[is_so][:3]))
        for kind, is_so in flags.items()
    ]
    table = pd.DataFrame(rows, columns=["kind", "drugs", "share", "examples"])
    return table.assign(meaning=list(KINDS.values()))


def to_look_at(report: pd.DataFrame) -> pd.DataFrame:
    """Drugs that share a molecule with another, or cannot be read; one may merge or drop them."""
    columns = ["problem", "same_molecule", "same_parent", "stereo_isomer"]
    doubtful = report[report[columns].ne("").any(axis=1)].reset_index()
    return doubtful[[*HEADINGS["molecules to look at"], "canonical"]]


def molecules_said(report: pd.DataFrame) -> str:
    """Say in a sentence or two what the molecules of a screen are."""
    flags = _flags(report)
    n = flags.sum()
    unreadable, twins = tell("molecules.readable"), tell("molecules.different")
    if n["unreadable"]:
        unreadable = tell("molecules.unreadable", n=n["unreadable"])
    same = report.loc[flags["same_molecule"], "same_molecule"]
    if len(same):
        pair = f"{same.index[0]} and {same.iloc[0].split('; ')[0]}"
        twins = tell("molecules.twins", n=n["same_molecule"], pair=pair)
    return tell("molecules.said", counts=n, n=len(report), unreadable=unreadable, twins=twins)


def twins_said(report: pd.DataFrame, responses) -> str:
    """Say in how far folds part drugs that are one molecule up to salt or stereo-chemistry."""
    obs = responses.obs
    folds = obs.groupby(obs["perturbation"].astype(str))["fold"]
    shared = int((folds.nunique() == 1).sum())
    lines = obs["cell_line"].nunique()
    where = "" if lines == 1 else f", the same in all {lines} cell lines"
    first = f"Each drug lies in one fold{where}"
    if shared < folds.ngroups:
        n = folds.ngroups
        first = f"{n - shared} of {n} drugs lie in different folds in different cell lines"
    fold, flat = folds.first(), report.loc[report["flat"] != "", "flat"]
    flat = flat[flat.index.isin(fold.index)]
    groups = [fold[list(drugs)] for drugs in flat.groupby(flat).groups.values() if len(drugs) > 1]
    if not groups:
        return tell("molecules.no_twins", first=first)
    apart = sum(len(g) for g in groups if g.nunique() > 1)
    return tell("molecules.apart", first=first, n=sum(len(g) for g in groups), apart=apart)


def known_targets_said(report: pd.DataFrame, table: pd.DataFrame, name: str) -> str:
    """Say how many drugs without targets have one in another table, matched by structure."""
    targeted = table[table["targets"] != ""]
    known = set(molecule_report(targeted)["flat"]) - {""}
    n = int(report["flat"].isin(known).sum())
    few = tell("molecules.few") if n < ENOUGH * len(report) else ""
    drugs = len(report)
    return tell("molecules.targets", n=n, drugs=drugs, share=n / drugs, name=name, few=few)


def show_molecules(chapter, data, targets_from: str = "") -> None:
    """Show the report of a data set's molecules: counts, drugs to look at, sentences.

    `targets_from`: a drug table of the catalogue with targets, where the data set names none.
    """
    drugs = (data.extras or {}).get("drugs")
    if drugs is None:
        pages.say(tell("molecules.vectors_only", title=data.title))
        return
    report = molecule_report(drugs)
    pages.say(molecules_said(report))
    pages.say(twins_said(report, data.responses))
    counted, doubtful = molecule_counts(report), to_look_at(report)
    caption = "What rdkit made of the SMILES."
    pages.show_table(chapter, counted, "molecules", digits=2, caption=caption)
    caption = "Drugs to look at (the file has all)."
    keep = "molecules to look at"
    pages.show_table(chapter, doubtful, "molecules-to-look-at", keep=keep, caption=caption)
    if targets_from and not (drugs["targets"] != "").any():
        source = find_source({"name": "targets", "source": targets_from}, "drugs", BuildContext())
        pages.say(known_targets_said(report, source.read(), source.label.split(" [")[0]))
