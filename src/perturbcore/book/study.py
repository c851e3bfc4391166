"""A profile at work: its data sets, embeddings, noise ceilings and scores, each made once."""

from collections.abc import Sequence
from functools import cached_property, partial

import pandas as pd
from anndata import AnnData

from perturbcore.book.source import absent, find_chapter
from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.core.files import kept_table, save_table
from perturbcore.core.profile import results_root
from perturbcore.data.catalogue import verify
from perturbcore.data.identifiers import GENE_FILES, gene_aliases
from perturbcore.data.stored import open_dataset
from perturbcore.embeddings.authors import own_embeddings
from perturbcore.embeddings.build import build_all, serving
from perturbcore.embeddings.controls import random_embedding
from perturbcore.embeddings.coverage import coverage_table, covered_by_all
from perturbcore.embeddings.sources import BuildContext
from perturbcore.models.registry import build_models
from perturbcore.models.simple import evaluate_embeddings, predictor
from perturbcore.models.simple.embedding import mask_only
from perturbcore.models.simple.space import Protocol
from perturbcore.report.figures.style import colour
from perturbcore.report.noise import calibrated
from perturbcore.score.ceiling.curves import ceilings_against_truth
from perturbcore.score.leaks import leak_report
from perturbcore.score.limits import experimental_error, limit_units
from perturbcore.score.store import ASIDE, ScoreStore
from perturbcore.score.task import task_of

MIN_COVERAGE = 0.2


class Study:
    """What a chapter asks for, computed or found among the results of its profile.

    Parameters
    ----------
    chapter : OpenChapter
        The running chapter; `perturbcore.book.inside.open_chapter` gives it.
    n_jobs : int
        Threads.

    Examples
    --------
    >>> from types import ModuleType
    >>> notebook = ModuleType("notebook")
    >>> notebook.profile, notebook.__annotations__ = "demo", {"profile": str}
    >>> chapter = pc.open_chapter("embedding_ranking", notebook)
    >>> pc.Study(chapter).profile.simulated
    True
    """

    def __init__(self, chapter, n_jobs: int = 2):
        self.chapter = chapter
        self.profile = chapter.profile
        self.n_jobs = n_jobs
        self._datasets: dict = {}
        self._embeddings: dict = {}
        self._left_out: dict[str, dict[str, str]] = {}
        self._scopes: set[str] = set()

    @cached_property
    def store(self) -> ScoreStore:
        """The score store of the profile."""
        return ScoreStore(self.profile.results / "scores.sqlite")

    def dataset(self, name: str):
        """Open a data set of the profile; see `perturbcore.data.stored.open_dataset`."""
        if name not in self._datasets:
            entry = self.profile.dataset(name)
            folder = self.profile.results / "responses"
            self._datasets[name] = open_dataset(name, entry.loader, entry.options, folder)
        return self._datasets[name]

    def embeddings(
        self, name: str, *, seed: int = 0, covering: float = MIN_COVERAGE, only: Sequence[str] = ()
    ) -> list:
        """Build the profile's embeddings that serve a data set, and the random control.

        Those that cover less than `covering` of the perturbations of every cell line are left out;
        `coverage` shows them all. Embeddings of drugs serve data sets of drugs, those of genes the
        others, and a specification with `datasets: [...]` only those. Those that a data set brings
        along come first. With `only`, no others than these are built.
        """
        made = self._built(name, tuple(only))
        responses = self.dataset(name).responses
        table = coverage_table(made, responses)
        enough = set(table.loc[table["coverage"] >= covering, "embedding"])
        kept = [e for e in made if e.name in enough]
        ids = sorted(responses.obs["perturbation"].astype(str).unique())
        identifier = responses.uns["perturbcore"]["identifier"]
        return [*kept, random_embedding(ids, 100, seed, identifier=identifier)]

    def coverage(self, name: str) -> pd.DataFrame:
        """How many perturbations of a data set each embedding of the profile covers.

        ``attrs["left_out"]`` has a line for each optional one that could not be made.
        """
        table = coverage_table(self._built(name), self.dataset(name).responses)
        table.attrs["left_out"] = [
            f"{e}: {why.split('; ')[0]}." for e, why in self._left_out[name].items()
        ]
        return table

    def _built(self, name: str, only: tuple = ()) -> list:
        if (name, only) not in self._embeddings:
            identifier = self.dataset(name).responses.uns["perturbcore"]["identifier"]
            specs, serve = serving(
                self.profile.embeddings, name, identifier, only, self.chapter.name
            )
            brought = own_embeddings(self.dataset(name))
            brought = [e for e in brought if not only or e.name in only]
            if not specs and not brought:
                raise InputError(
                    f"profile '{self.profile.name}' has no embedding for data set '{name}'"
                    f"{' among ' + ', '.join(only) if only else ''}: add one under 'embeddings'"
                )
            context = BuildContext(dataset=self.dataset(name), folder=self.profile.path.parent)
            cache = self.profile.results / "embeddings"
            left_out = self._left_out.setdefault(name, {})
            made = build_all(specs, context, cache=cache, left_out=left_out)
            built = [*brought, *(e for e in made if e.name in serve)]
            for e in built:
                colour(e.modality)  # an unknown one is refused before anything is computed
            self._embeddings[name, only] = built
        return self._embeddings[name, only]

    def ceiling(
        self, name: str, *, n_outer: int = 10, n_inner: int = 10, n_trials: int = 20
    ) -> pd.DataFrame | None:
        """Experimental error of a data set, or None where it holds no replicates.

        `n_outer, n_inner`: trials over batches, and over cells within them (published: 10 x 10,
        chemicals 10 x 20; labels by batch 3 x 3); `n_trials`: of labels that pool the batches.
        Returns a row per perturbation (of labels: per fold), quantile and metric.
        """
        data = self.dataset(name)
        if data.ceiling is not None:
            return data.ceiling
        if not (data.holds("screen") or data.holds("replicates")):
            return None
        folder = self.profile.results / "ceilings"
        options = dict(self.profile.dataset(name).options)
        responses = data.responses
        # of labels the folds decide too: their error is scored fold by fold
        trials = [n_outer, n_inner] + (
            [n_trials, *responses.obs["fold"]] if task_of(data.task).classes else []
        )
        made_by = code_digest(experimental_error)
        key = digest(name, responses.X, list(responses.obs_names), *trials, options, made_by)
        make = partial(
            experimental_error, data, n_outer=n_outer, n_inner=n_inner, n_trials=n_trials,
            options=options, n_jobs=self.n_jobs, checkpoint=folder / f"{name}.sqlite",
        )  # fmt: skip
        return kept_table(folder / f"{name}-{key}.parquet", make)

    def truth(self) -> pd.DataFrame:
        """Say how near ceilings are to the known truth of simulated screens."""
        return kept_truth(self.n_jobs)

    def scope(self, part: str) -> str:
        """Name under which the store keeps a part of this chapter; other values have another."""
        own = f"{self.chapter.name}/{part}"
        if self.chapter.changed:
            own = f"{ASIDE}{own}/{digest(self.chapter.changed)}"
        self._scopes.add(own)
        return own

    def claimed(self, *chapters: str, required: bool = True) -> pd.DataFrame | None:
        """Return scores of the first of `chapters` with data; None: none has, or not `required`."""
        there = [c for c in map(find_chapter, chapters) if not c.missing(self.profile)]
        if not there:
            return None
        chapter, own = there[0].name, there[0].parameters["dataset"].default
        name = there[0].values(self.profile).get("dataset", own)
        keys = self.store.keys_of(f"{chapter}/{name}")
        if not keys and not required:
            return None
        if not keys:
            raise InputError(f"no scores of '{chapter}' in profile '{self.profile.name}': run it")
        return calibrated(self.store.compared(keys), self.dataset(name), self.truth)

    def export(self) -> None:
        """Write ``scores.parquet``: of the book, or of this run where it has its own folder."""
        path = self.chapter.folder / "scores.parquet"
        if not self.chapter.changed:
            self.store.export(path)
            return
        keys = [key for scope in sorted(self._scopes) for key in self.store.keys_of(scope)]
        save_table(self.store.compared(keys), path)

    def protocol(self, **options) -> Protocol:
        """Return a protocol with the inner folds of the profile; `options`: see `Protocol`."""
        return Protocol(inner_order=self.profile.inner_order, **options)

    def models(self, task: str, *, knn, lasso=(), C=None, softmax=None) -> list:
        """Return the two predictors that a ranking compares.

        kNN, then lasso; for partial labels a kernel; for complete labels the published logistic
        classifier, with the candidates `C` (the published grid by default) and the options
        `softmax` of its fit.
        """
        second = {
            "lfc": ("lasso", {"grid": lasso, "tolerance": self.profile.lasso_tolerance}),
            "deg": ("logistic", {**({} if C is None else {"grid": C}), "softmax": softmax or {}}),
            "pairs": ("kernel", {}),
        }
        name, options = second[task_of(task).kind]
        return [predictor("knn", task, grid=knn), predictor(name, task, **options)]

    def evaluate(
        self,
        name: str,
        predictors=("knn",),
        *,
        protocol: Protocol | None = None,
        models: Sequence = (),
        embeddings=None,
        ceiling: pd.DataFrame | None = None,
        responses: AnnData | None = None,
        part: str = "",
        common: bool = False,
        seed: int = 0,
        **options,
    ) -> pd.DataFrame:
        """Score embeddings and models on a data set, with floor, ceiling and experimental error.

        `predictors, protocol, seed, options`: see `perturbcore.models.simple.evaluate_embeddings`;
        `models`: methods that are no predictor on one embedding (those that the profile lists and
        that predict this task are scored as well); `embeddings`: ``embeddings(name)`` by default;
        `ceiling`: ``ceiling(name)``, its rows become units of predictor "experimental_error";
        `responses`: made of those of the data set (labels of functions, other folds), scored as the
        data set "`name`, `part`"; `common`: keep only perturbations for which every embedding has a
        vector, the rule of Hasanaj et al. 2025.

        Where there are such rows, a column `calibrated` says which may be a ceiling. Where labels
        are known in part, the control that sees only which stands among the rest.
        """
        responses = self.dataset(name).responses if responses is None else responses
        if embeddings is None:
            embeddings = self.embeddings(name, seed=seed)
        if common:
            responses = covered_by_all(responses, embeddings)
        called = f"{name}, {part}" if part else name
        scope = self.scope(called)
        own = [p if isinstance(p, str) else p.name for p in predictors]
        more = [
            m
            for m in build_models(self.profile.models, task_of(responses), embeddings, protocol)
            if m.predictor not in own or m.group is None
        ]
        limits = [] if ceiling is None else limit_units(ceiling, responses, seed, dataset=called)
        more += mask_only(responses)
        scores = evaluate_embeddings(
            responses, embeddings, predictors, models=[*more, *models], store=self.store,
            scope=scope, dataset=called, protocol=protocol, seed=seed, also=limits,
            n_jobs=self.n_jobs, progress=False, **options,
        )  # fmt: skip
        self.export()
        return calibrated(scores, self.dataset(name), self.truth)

    def leaks(self, *names: str) -> pd.DataFrame:
        """Report of `perturbcore.score.leaks` on data sets and the embeddings built for them.

        A column `data` says which one. The gene table is asked where its files are at hand.
        """
        tables = {}
        for name in names:
            data, drugs = self.dataset(name), self.dataset(name).extras.get("drugs")
            built = [e for (of, _), made in self._embeddings.items() if of == name for e in made]
            smiles = None if drugs is None else drugs["smiles"].astype(str).to_dict()
            genes = data.responses.uns["perturbcore"]["identifier"] in ("symbol", "ensembl")
            known = genes and not data.simulated and set(verify(GENE_FILES).values()) == {"ok"}
            found = leak_report(
                data.responses,
                {e.name: e for e in built}.values(),
                smiles=smiles,
                aliases=gene_aliases() if known else None,
            )
            tables[data.title] = found
        if not tables:
            return pd.DataFrame()
        return pd.concat(tables, names=["data"]).reset_index(level=0)

    def names(self) -> list[str]:
        """List the data sets of the profile that are there."""
        gone = absent(self.profile)
        return [d.name for d in self.profile.datasets if d.name not in gone]


def kept_truth(n_jobs: int = 1) -> pd.DataFrame:
    """Return `ceilings_against_truth`, made once for all profiles."""
    path = results_root() / "ceilings" / f"truth-{code_digest(ceilings_against_truth)}.parquet"
    return kept_table(path, partial(ceilings_against_truth, n_jobs=n_jobs))
