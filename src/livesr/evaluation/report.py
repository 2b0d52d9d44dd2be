"""An evaluation as a folder to look at.

report.html with box plots, tables and pictures, report.json with every number.

Owns the layout. Computes no score. The page is one file and loads nothing: it can be mailed.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from livesr.evaluation.pictures import PictureRow, montage
from livesr.evaluation.summary import interval_text

_METRICS = {
    "pcc": "PCC",
    "ssim": "SSIM",
    "ssim_paper": "SSIM, c1 = 0.01, c2 = 0.03",
    "ms_ssim": "MS-SSIM",
    "nrmse": "NRMSE",
    "psnr": "PSNR, dB",
    "gradient": "mean gradient over the truth's",
    "frc_px": "FRC with the truth, pixels",
}
_PLOTTED = ("pcc", "ssim", "nrmse")
_WHO = {"network": "#2563eb", "input": "#9ca3af"}
_TESTS = {
    "shuffled_pcc_loss": "PCC lost when neighbours in time are shuffled",
    "flicker": "Flicker in a scene that stands still",
    "frc_nm": "FRC resolution, nm",
    "decorrelation_nm": "Decorrelation resolution, nm",
}
_FEW = 10  # values, of which a bootstrap interval is clearly too narrow
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}svg{margin-right:1rem}.note{color:#555}"""


def write_report(folder: Path, result: Mapping[str, Any], rows: Sequence[PictureRow] = ()) -> Path:
    """Write report.json and report.html into `folder`, made if needed; return the page.

    Parameters
    ----------
    result : of `evaluate_engine` or `evaluate_pairs`; `diagnostics`, if there, of `diagnose_engine`
    rows : pictures to show, with error maps
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8", newline="\n")
    page = folder / "report.html"
    page.write_text(_page(result, rows), encoding="utf-8", newline="\n")
    return page


def box_plot(title: str, groups: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return an SVG of Tukey's box plots.

    Quartiles, median, whiskers to the last value within 1.5 times the box, outliers.

    Parameters
    ----------
    groups : values by series, in groups side by side; a series without values leaves its place
        empty
    """
    everything = [v for series in groups.values() for values in series.values() for v in values]
    low, high = (min(everything), max(everything)) if everything else (0.0, 1.0)
    pad = 0.05 * (high - low) or 0.5
    low, high = low - pad, high + pad
    width, height, left, top = 60 + 90 * len(groups), 240, 50, 24

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - 28)

    parts = [f'<text x="{left}" y="15" font-weight="600">{html.escape(title)}</text>']
    for tick in np.linspace(low + pad, high - pad, 5):
        parts.append(
            f'<line x1="{left}" x2="{width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#eee"/>'
        )
        parts.append(
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.3g}</text>'
        )
    for i, (group, series) in enumerate(groups.items()):
        centre = left + 90 * i + 45
        parts.append(
            f'<text x="{centre}" y="{height - 8}" text-anchor="middle">{html.escape(group)}</text>'
        )
        for j, (who, values) in enumerate(series.items()):
            if len(values):
                parts.append(
                    _box(
                        centre + 30 * (j - (len(series) - 1) / 2), values, _WHO.get(who, "#111"), y
                    )
                )
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} font-size="12" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'


def tukey(
    values: Sequence[float],
) -> tuple[tuple[float, float, float], tuple[float, float], list[float]]:
    """Return quartiles, whisker ends and outliers."""
    v = np.sort(np.asarray(values, np.float64))
    q1, median, q3 = (float(q) for q in np.percentile(v, (25, 50, 75)))
    inside = v[(v >= q1 - 1.5 * (q3 - q1)) & (v <= q3 + 1.5 * (q3 - q1))]
    ends = float(inside.min()), float(inside.max())
    return (q1, median, q3), ends, [float(x) for x in v if not ends[0] <= x <= ends[1]]


def _box(x: float, values: Sequence[float], color: str, y: Any) -> str:
    (q1, median, q3), (low, high), outliers = tukey(values)
    lines = [
        (x, low, x, q1),
        (x, q3, x, high),
        (x - 6, low, x + 6, low),
        (x - 6, high, x + 6, high),
    ]
    drawn = [
        f'<line x1="{a:.1f}" y1="{y(b):.1f}" x2="{c:.1f}" y2="{y(d):.1f}" stroke="{color}"/>'
        for a, b, c, d in lines
    ]
    drawn.append(
        f'<rect x="{x - 10:.1f}" y="{y(q3):.1f}" width="20" height="{max(y(q1) - y(q3), 1):.1f}"'
        f' fill="{color}" fill-opacity=".25" stroke="{color}"/>'
    )
    drawn.append(
        f'<line x1="{x - 10:.1f}" x2="{x + 10:.1f}" y1="{y(median):.1f}" y2="{y(median):.1f}"'
        f' stroke="{color}" stroke-width="2"/>'
    )
    drawn += [
        f'<circle cx="{x:.1f}" cy="{y(o):.1f}" r="2.5" fill="none" stroke="{color}"/>'
        for o in outliers
    ]
    return "".join(drawn)


def _page(result: Mapping[str, Any], rows: Sequence[PictureRow]) -> str:
    engine, backend = result["engine"], result["backend"]
    title = html.escape(f"{engine['id']} {engine['version']}")
    parts = [
        f"<h1>{title}</h1>",
        (
            f"<p>{html.escape(result['data'])}, on {html.escape(backend['name'])}"
            f" {html.escape(backend['precision'])}. SHA-256 {engine['sha256'][:12]}. Network, and"
            " beside it the input taken as the prediction. What the network shows is a"
            " prediction.</p>"
        ),
    ]
    if not engine["trained"]:
        parts.append("<p><strong>This engine is untrained: its channels mean nothing.</strong></p>")
    legend = " ".join(
        f'<span style="color:{color}">&#9632; {who}</span>' for who, color in _WHO.items()
    )
    parts += [f"<p>{legend}</p>", *(box_plot(_METRICS[m], _values(result, m)) for m in _PLOTTED)]
    parts += ["<h2>Scores</h2>", _scores(result), *_null_tests(result)]
    if "decorrelation_px" in result:
        cells = {
            name: [_cell(v) for v in whose.values()]
            for name, whose in result["decorrelation_px"].items()
        }
        heads = next(iter(result["decorrelation_px"].values()))
        parts += ["<h2>Decorrelation resolution, pixels</h2>", _table(["structure", *heads], cells)]
    if "mean_gradient" in result:
        given = {k: [_cell(v)] for k, v in result["mean_gradient"].items()}
        parts += ["<h2>Mean gradient, thousandths</h2>", _table(["image", "mean gradient"], given)]
        parts.append(
            '<p class="note">Noise and aliasing raise the mean gradient too: read it beside PSNR'
            " and SSIM.</p>"
        )
    if rows:
        parts += ["<h2>Pictures</h2>", _picture(rows)]
    head = (
        "<!doctype html><html lang=en><meta"
        f" charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    )
    return f"{head}{''.join(parts)}</html>\n"


def _values(result: Mapping[str, Any], metric: str) -> dict[str, dict[str, list[float]]]:
    """Values of one metric over sequences, by structure and by network or input."""
    names = _simulated_names(result)
    return {
        label: {
            who: [
                s[who][name][metric]
                for s in result["sequences"]
                if s[who][name][metric] is not None
            ]
            for who in _WHO
        }
        for label, name in names.items()
    }


def _simulated_names(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the name that the sequences use for each of the engine's structures."""
    under = list(result["sequences"][0]["network"])
    return dict(zip(result["structures"], under, strict=True))


def _scores(result: Mapping[str, Any]) -> str:
    rows = {
        f"{name}, {who}": [_cell(entry[who][metric]) for metric in _METRICS]
        for name, entry in result["structures"].items()
        for who in ("network", "input", "gain")
    }
    over = "sequences"
    if "settings" not in result:  # of pairs nobody knows which are of one cell
        over = (
            "pairs, each taken for a cell of its own: patches or time points of the same few images"
            " make them too narrow"
        )
    note = f'<p class="note">Means and bootstrap 95 % intervals over {over}.</p>'
    return _table(["", *_METRICS.values()], rows) + note


def _null_tests(result: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>Light that does not belong</h2>"]
    rows = {name: [_cell(value)] for name, value in result["false_positive"].items()}
    parts.append(_table(["structure", "of all predicted light, where its truth is dark"], rows))
    if "leakage" in result:
        rows = {name: [_cell(entry["total"])] for name, entry in result["leakage"].items()}
        parts.append(_table(["one structure alone", "of its light predicted as the others"], rows))
        parts.append(
            f"<p>Blank input: {_cell(result['blank'])} of its |x| is predicted as structure.</p>"
        )
    scenes = 0
    for what, by_name in result.get("diagnostics", {}).items():
        parts.append(
            _table(
                ["", _TESTS.get(what, what)],
                {name: [_cell(value)] for name, value in by_name.items()},
            )
        )
        scenes = max(scenes, *(value["n"] for value in by_name.values()))
    if 1 < scenes < _FEW:
        parts.append(
            f'<p class="note">Of {scenes} scenes: such an interval is too narrow, and covers the'
            " true mean in 80 % of the cases with four values, in half of them with two.</p>"
        )
    return parts


def _table(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
        for name, cells in rows.items()
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(interval: Mapping[str, Any]) -> str:
    return "&ndash;" if interval["mean"] is None else interval_text(interval)


def _picture(rows: Sequence[PictureRow]) -> str:
    memory = io.BytesIO()
    montage(rows).save(memory, "PNG", optimize=True)
    data = base64.b64encode(memory.getvalue()).decode("ascii")
    return (
        '<img alt="input, channels, composite, truth and error"'
        f' src="data:image/png;base64,{data}">'
    )
