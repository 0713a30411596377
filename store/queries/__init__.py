"""All SQL, one module a feature; every function filters by the owning project."""
