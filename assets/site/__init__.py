"""The catalog site: a static site of what a team has, for people who never open Dagster."""
