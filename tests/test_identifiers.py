import numpy as np
import pandas as pd
import pytest
import rdata

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data import identifiers
from perturbcore.data.identifiers import convert, descriptions, gene_table, previous_symbols

ROWS = [
    ("ENSG1", "11", "AAA1", "1", "protein_coding", "first gene"),
    ("ENSG2", "12", "DUP", "2", "protein_coding", "coding one [Source:HGNC Symbol;Acc:HGNC:5]"),
    ("ENSG3", "", "DUP", "2", "lncRNA", "antisense"),
    ("ENSG4", "14", "TWO", "3", "protein_coding", "two a"),
    ("ENSG5", "15", "TWO", "X", "protein_coding", "two b"),
    ("ENSG6", "16", "HAP", "6", "protein_coding", "on the chromosome"),
    ("ENSG7", "16", "HAP", "CHR_HSCHR6_MHC_QBL", "protein_coding", "on the haplotype"),
    ("ENSG8", "18", "PATCH", "CHR_HG76_PATCH", "protein_coding", "on a patch only"),
    ("ENSG9", "19", "", "4", "lncRNA", ""),
    ("ENSG10", "20", "MANY", "5", "protein_coding", "two entrez"),
    ("ENSG10", "21", "MANY", "5", "protein_coding", "two entrez"),
]


@pytest.fixture
def table():
    columns = ["ensembl", "entrez", "symbol", "chromosome", "biotype", "description"]
    return pd.DataFrame(ROWS, columns=columns)


def test_conversion_says_what_it_could_not_do(table):
    ids = ["AAA1", "DUP", "TWO", "HAP", "PATCH", "NEW", "AAA1"]
    report = convert(ids, "symbol", "ensembl", table)
    assert report.index.tolist() == ids[:-1]
    assert report["value"].fillna("-").tolist() == ["ENSG1", "ENSG2", "-", "ENSG6", "ENSG8", "-"]
    status = ["ok", "resolved", "ambiguous", "ok", "ok", "missing"]
    assert report["status"].tolist() == status
    assert report.loc["TWO", "candidates"] == "ENSG4, ENSG5"
    assert not report["shared"].any()


@pytest.mark.parametrize(
    ("id_", "kinds", "status", "value"),
    [
        ("ENSG1.14", ("ensembl", "symbol"), "ok", "AAA1"),
        ("ENSG9", ("ensembl", "symbol"), "missing", None),
        ("11", ("entrez", "ensembl"), "ok", "ENSG1"),
        ("MANY", ("symbol", "entrez"), "ambiguous", None),
    ],
)
def test_conversion_between_all_kinds(table, id_, kinds, status, value):
    row = convert([id_], *kinds, table).iloc[0]
    assert row["status"] == status and (row["value"] == value if value else pd.isna(row["value"]))


def test_two_ids_of_one_gene_share_it_and_nonsense_is_refused(table):
    report = convert(["20", "21"], "entrez", "symbol", table)
    assert report["value"].tolist() == ["MANY", "MANY"] and report["shared"].all()
    assert len(convert([], "entrez", "symbol", table)) == 0
    with pytest.raises(ParameterError, match="'hgnc'.*symbol, ensembl, entrez"):
        convert(["AAA1"], "symbol", "hgnc", table)
    with pytest.raises(InputError, match="missing"):
        convert(["AAA1", np.nan], "symbol", "ensembl", table)


def test_old_symbols_find_todays(table, tmp_path, monkeypatch):
    path = tmp_path / "old.csv"
    monkeypatch.setattr("perturbcore.data.catalogue.fetch", lambda name: path)
    rows = ["ENSG1,AAA", "ENSG2,DUP", "ENSG4,OLD", "ENSG5,OLD", "ENSG6,AAA1", "ENSG0,GONE"]
    path.write_text("\n".join(["ensembl_id,gene_name", *rows]))
    previous = previous_symbols(table)
    # AAA1 is borne by another gene today; OLD leads to one symbol by two genes
    assert previous.to_dict() == {"AAA": "AAA1", "OLD": "TWO"}
    path.write_text("ensembl,gene_name\nENSG1,AAA\n")
    pytest.raises(InputError, previous_symbols, table).match("no column 'ensembl_id'")


def test_descriptions_have_no_source_and_prefer_the_coding_gene(table):
    texts = descriptions(table)
    assert texts["DUP"] == "coding one"
    assert texts["HAP"] == "on the chromosome" and texts["PATCH"] == "on a patch only"
    assert "" not in texts and len(texts) == 6
    assert texts == descriptions(table.sample(frac=1, random_state=2))


def raw_table():
    rows = [
        ("ENSG1", 7105, "AAA1", "X", "protein_coding", "first", 5, 9, -1),
        ("ENSG2", 12, "", "1", "lncRNA", "", 1, 2, 1),
    ]
    columns = ["ensgene", "entrez", "symbol", "chr", "biotype", "description"]
    columns += ["start", "end", "strand"]
    return pd.DataFrame(rows, columns=columns).astype({"entrez": "Int32"})


def test_gene_table_is_that_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "grch38.rda"
    rdata.write_rda(path, {"grch38": raw_table()})
    monkeypatch.setattr("perturbcore.data.catalogue.fetch", lambda name, **_: path)
    table = gene_table()
    assert table.columns.tolist() == [*identifiers.COLUMNS, *identifiers.PLACE]
    said = ["ENSG1", "7105", "AAA1", "X", "protein_coding", "first", "5", "9", "-1"]
    assert table.loc[0].tolist() == said
    rdata.write_rda(path, {"grch38": raw_table().drop(columns="entrez")})
    pytest.raises(InputError, gene_table).match("no part 'entrez'")


def test_real_gene_table(mirror):
    table = gene_table()
    assert len(table) == 75_118
    assert set(table.loc[table["symbol"] == "TP53", "strand"]) == {"-1"}
    report = convert(["TP53", "MYC", "AARS"], "symbol", "ensembl", table)
    assert report["value"].fillna("-").tolist() == ["ENSG00000141510", "ENSG00000136997", "-"]
    assert previous_symbols(table)["AARS"] == "AARS1"
    assert descriptions(table)["TP53"] == "tumor protein p53"
