"""The recipe of recipe.yaml with one more rule. A recipe in Python is a `Recipe`, or a mapping as in YAML."""

from pathlib import Path

import yaml

recipe = yaml.safe_load(Path(__file__).with_name("recipe.yaml").read_text())
recipe["rules"].append({"rule": "short_module", "drop": "lines < 40"})
