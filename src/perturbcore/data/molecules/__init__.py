"""Small molecules: tables of drugs, their SMILES checked and canonicalised, a built-in table."""
