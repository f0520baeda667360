"""The sections of the site: what it shows of models, recipes, scores and licences."""
