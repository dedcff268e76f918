"""Shared vocabulary: problem, plan, certificate, formats, budget, refs, recipe, errors. Needs numpy and pydantic."""
