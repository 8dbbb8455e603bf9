"""A run of the workflow as a person wants to know it: how far it is while it goes on, and what it took at its end.

Below `logs/runs` each run has a folder of its own, so that two runs at once do not mix: `progress.json`, kept up to
date while the run goes on, `provenance.json`, and at its end `rules.tsv`, `patients.tsv` and `jobs.tsv`.
"""
