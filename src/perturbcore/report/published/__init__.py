"""The papers' published numbers in the book's scores schema, their figures and their claims."""
