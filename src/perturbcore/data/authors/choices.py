"""Where the paper and its published code differ or leave open, and how to choose here."""

import pandas as pd

# name of the choice, what the paper says, what the published code does, and how to choose here
CHOICES = (
    (
        "Order of training perturbations in the inner folds",
        "not stated",
        "as they lie in the file",
        "Protocol(inner_order='file'); 'id' does not depend on the file",
    ),
    (
        "Batches of the Essential effects",
        "only batches with control cells (B_k)",
        "every batch with perturbed cells",
        "paper responses essential --batches all; 'with_controls' follows the paper",
    ),
    (
        "Experimental error of Norman",
        "controls of the same batch, as its effects",
        "controls of the whole screen",
        "paper error norman --controls global; 'matched' follows the effects",
    ),
    (
        "Normalisation of chemical screens",
        "not stated",
        "effects: totals over all genes, then the gene filter; error and labels: filter first",
        "paper responses --totals all; paper error --totals kept",
    ),
    (
        "Minimum of cells for labels",
        "30 in every screen",
        "more than 30 (Essential), more than 20 of a drug on a plate (chemicals)",
        "paper responses --task deg --min-cells",
    ),
    (
        "Test for labels",
        "Student's t",
        "Welch's t",
        "paper responses --task deg --test welch",
    ),
    (
        "Test perturbation without embedding",
        "mean of the training responses",
        "genes: that mean, over training perturbations with and without embedding; drugs: an error",
        "Protocol(missing='train_mean'); missing_drugs='error'",
    ),
    (
        "Components of the first training sets",
        "100 (Norman 50)",
        "the same; an error where a training set has fewer rows or columns",
        "n_components; cut here where there are fewer",
    ),
    (
        "Principal components",
        "not stated",
        "scikit-learn's automatic solver, randomised and unseeded",
        "exact or seeded: differences of about 0.01 in L2 are the solver's",
    ),
    (
        "Random embedding",
        "not stated",
        "uniform, unseeded, drawn anew for training and test of each fold",
        "uniform, a row depends on seed and perturbation alone: random_embedding(seed=)",
    ),
    (
        "Correlation of the No Change prediction",
        "not stated",
        "missing (a constant has none)",
        "0 here, and shown as missing beside the published tables",
    ),
    (
        "Dose filter of Sci-Plex",
        "10 µM",
        "compares with the text '10000.0', which finds nothing where doses are numbers",
        "compared as numbers here: paper responses sciplex --dose 10000",
    ),
)


def choices() -> pd.DataFrame:
    """Where paper and published code differ or leave open, and the parameter that decides here.

    Returns
    -------
    pandas.DataFrame
        `choice`, `paper`, `code`, `here`. Defaults follow the published code.
    """
    return pd.DataFrame(CHOICES, columns=["choice", "paper", "code", "here"])
