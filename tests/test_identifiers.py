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
TABLE = pd.DataFrame(ROWS, columns=list(identifiers.COLUMNS))
# from, to, ids: what each becomes (- for nothing), and its status
CONVERTED = {
    "symbol ensembl AAA1 DUP TWO": ("ENSG1 ENSG2 -", "ok resolved ambiguous"),
    "symbol ensembl HAP PATCH NEW": ("ENSG6 ENSG8 -", "ok ok missing"),
    "ensembl symbol ENSG1.14 ENSG9": ("AAA1 -", "ok missing"),
    "entrez ensembl 11": ("ENSG1", "ok"),
    "symbol entrez MANY": ("-", "ambiguous"),
    "entrez symbol 20 21": ("MANY MANY", "ok ok"),
}


@pytest.mark.parametrize("asked", CONVERTED)
def test_conversion_says_what_it_could_not_do(asked):
    (values, status), (from_, to, *ids) = CONVERTED[asked], asked.split()
    report = convert([*ids, ids[0]], from_, to, TABLE)
    assert report.index.tolist() == ids and report["status"].tolist() == status.split()
    assert report["value"].fillna("-").tolist() == values.split()
    assert (report["shared"] == (values == "MANY MANY")).all()
    assert "TWO" not in ids or report.loc["TWO", "candidates"] == "ENSG4, ENSG5"


def test_ids_that_cannot_be_converted_are_refused():
    assert len(convert([], "entrez", "symbol", TABLE)) == 0
    with pytest.raises(ParameterError, match="'hgnc'.*symbol, ensembl, entrez"):
        convert(["AAA1"], "symbol", "hgnc", TABLE)
    with pytest.raises(InputError, match="missing"):
        convert(["AAA1", np.nan], "symbol", "ensembl", TABLE)


def test_old_symbols_find_todays(tmp_path, monkeypatch):
    path = tmp_path / "old.csv"
    monkeypatch.setattr("perturbcore.data.catalogue.fetch", lambda name: path)
    rows = ["ENSG1,AAA", "ENSG2,DUP", "ENSG4,OLD", "ENSG5,OLD", "ENSG6,AAA1", "ENSG0,GONE"]
    rows += ["ENSG1,SPLIT", "ENSG2,SPLIT"]
    path.write_text("\n".join(["ensembl_id,gene_name", *rows]))
    # AAA1 is borne by another gene today; OLD leads to one symbol by two genes, SPLIT to two
    assert previous_symbols(TABLE).to_dict() == {"AAA": "AAA1", "OLD": "TWO"}
    path.write_text("ensembl,gene_name\nENSG1,AAA\n")
    pytest.raises(InputError, previous_symbols, TABLE).match("no column 'ensembl_id'")


def test_descriptions_have_no_source_and_prefer_the_coding_gene():
    texts = descriptions(TABLE)
    assert texts["DUP"] == "coding one"
    assert texts["HAP"] == "on the chromosome" and texts["PATCH"] == "on a patch only"
    assert "" not in texts and len(texts) == 6
    assert texts == descriptions(TABLE.sample(frac=1, random_state=2))


def test_gene_table_is_that_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "grch38.rda"
    monkeypatch.setattr("perturbcore.data.catalogue.fetch", lambda name, **_: path)
    said = ["ENSG1", "7105", "AAA1", "X", "protein_coding", "first", "5", "9", "-1"]
    columns = "ensgene entrez symbol chr biotype description start end strand".split()
    raw = pd.DataFrame([said], columns=columns).astype({"entrez": "Int32", "start": int})
    rdata.write_rda(path, {"grch38": raw})
    table = gene_table()
    assert table.columns.tolist() == [*identifiers.COLUMNS, *identifiers.PLACE]
    assert table.to_numpy().tolist() == [said]
    rdata.write_rda(path, {"grch38": raw.drop(columns="entrez")})
    pytest.raises(InputError, gene_table).match("no part 'entrez'")


def test_real_gene_table(mirror):
    table = gene_table()
    assert len(table) == 75_118
    assert set(table.loc[table["symbol"] == "TP53", "strand"]) == {"-1"}
    report = convert(["TP53", "MYC", "AARS"], "symbol", "ensembl", table)
    assert report["value"].fillna("-").tolist() == ["ENSG00000141510", "ENSG00000136997", "-"]
    assert previous_symbols(table)["AARS"] == "AARS1"
    assert descriptions(table)["TP53"] == "tumor protein p53"
