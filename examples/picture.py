"""The picture of the README, out of the figures that `make demo` has written.

python examples/picture.py demo/evaluation-VERSION.json docs/accuracy.svg
"""

import json
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

NAMES = {
    "tuned": "raee, tuned",
    "logistic": "full model and\nlogistic regression",
    "full": "full model's\nown head",
    "words": "n-grams, no model",
    "retrieval": "neighbours' vote",
    "raee": "the paper's rule",
}
"""Policies that are drawn, with their names in the picture."""

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "raee", "font.size": 11}


def main(figures: str, picture: str) -> None:
    """Draw each policy's accuracy on unseen messages against the layers that it runs.

    figures: the file of `raee evaluate --json`; picture: the SVG file to write.
    """
    found = json.loads(Path(figures).read_text("utf-8"))
    with matplotlib.rc_context(_STYLE):
        drawn = Figure((7.2, 3.6))
        axes = drawn.add_axes((0.09, 0.15, 0.88, 0.76))
        for policy, name in NAMES.items():
            line = found["policies"][policy]
            low, high = line["accuracy_interval"]
            layers, accuracy = line["mean_layers"], line["accuracy"]
            colour = "#d1495b" if policy == "tuned" else "#33658a"
            spread = [[accuracy - low], [high - accuracy]]
            axes.errorbar(layers, accuracy, spread, fmt="o", color=colour, elinewidth=1, capsize=3)
            right = policy == "tuned" or layers in (0, found["depth"])
            axes.annotate(
                name,
                (layers, accuracy),
                (9 if right else -9, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                color=colour,
                fontweight="bold" if policy == "tuned" else "normal",
            )
        axes.set_xlim(-0.02 * found["depth"], 1.3 * found["depth"])
        axes.set_xticks(range(found["depth"] + 1))
        axes.set_xlabel(f"layers that a message runs, of {found['depth']}, on average")
        axes.set_title(
            f"Accuracy on {found['rows']} messages that the database has not seen, 95 % intervals",
            loc="left",
            fontsize=11,
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        drawn.savefig(picture, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
