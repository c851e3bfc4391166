"""The authors' preprocessed data (Cole et al. 2026), and the published benchmark on them."""
