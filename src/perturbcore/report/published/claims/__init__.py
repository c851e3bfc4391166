"""The claims of the papers as data, and what decides them."""
