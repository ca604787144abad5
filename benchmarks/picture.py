"""The picture of docs/performance.md: where the time of a certificate goes, as the store grows, and beside others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.growth import Level
from benchmarks.issuance import WAYS, Row
from benchmarks.parts import ECHO, SIGNING, VERIFY, Part
from matplotlib import pyplot as plt

SPLIT = {
    "web server": "#8da0cb",
    "request signatures": "#e78ac3",
    "CSR and certificate": "#fc8d62",
    "store": "#66c2a5",
    "ACME": "#ffd92f",
}


def split(rows: Sequence[Row], pieces: Sequence[Part]) -> dict[str, dict[str, float]]:
    """What an issuance on SQLite spends on what, in verifies. The store is what SQLite costs more than memory does, and
    ACME what is left."""
    cost = {part.name: part.verifies for part in pieces}
    shares = {}
    for way, requests in WAYS.items():
        whole = {row.store: row.verifies for row in rows if row.way == way}
        bar = {
            "web server": requests * cost[ECHO],
            "request signatures": requests * cost[VERIFY],
            "CSR and certificate": sum(cost[name] for name in SIGNING),
            "store": whole["sqlite"] - whole["memory"],
        }
        shares[way] = bar | {"ACME": whole["sqlite"] - sum(bar.values())}
    return shares


def draw(
    rows: Sequence[Row],
    pieces: Sequence[Part],
    levels: Sequence[Level],
    others: Mapping[str, Sequence[Row]],
    path: Path,
) -> None:
    """Write the picture as SVG, the same for the same figures."""
    shares = split(rows, pieces)
    plt.rcParams.update({"svg.hashsalt": "privet", "font.size": 9})
    figure, (where, grown, compared) = plt.subplots(3, figsize=(8, 8.5), height_ratios=(2, 3, 3))
    names = [f"{way}: {WAYS[way]} requests" for way in shares]
    left = [0.0] * len(shares)
    for part, color in SPLIT.items():
        widths = [bar[part] for bar in shares.values()]
        where.barh(names, widths, left=left, color=color, label=part)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    where.set_title("Where the time of one certificate goes, on SQLite", loc="left")
    where.legend(ncols=len(SPLIT), loc="upper left", bbox_to_anchor=(0, -0.25), frameon=False, fontsize=8)
    stored = [f"{level.stored:,}" for level in levels]
    grown.bar(stored, [level.row.verifies for level in levels], color="#66c2a5")
    grown.set_title("As certificates are stored, all of them one account's", loc="left")
    compared.barh(list(others), [sum(row.verifies for row in some) / len(some) for some in others.values()])
    compared.set_title("Beside others: http-01 proved, over TLS", loc="left")
    for axes in (where, grown, compared):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (where, compared):
        axes.set_xlabel("processor time of the server, in P-256 verifications")
        axes.invert_yaxis()
    grown.set_ylabel("P-256 verifications")
    grown.set_xlabel("certificates stored before")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
