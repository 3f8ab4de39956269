"""A diagnosis as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "mmd": "MMD (squared)",
    "sliced_wasserstein": "sliced Wasserstein",
    "sinkhorn": "Sinkhorn divergence",
    "frechet": "Frechet (squared)",
}


def as_text(values: Mapping[str, Any]) -> str:
    """Return what :meth:`Diagnosis.as_values <d3hr.diagnostics.diagnosis.Diagnosis.as_values>` holds as text: verdicts, then figures."""
    subject, coverage = values["set"], values["coverage"]
    lines = [
        f"{subject['path']} ({subject['method']}, IPC {subject['ipc']}) against {values['data']['source']}, in {values['space']} space",
        "",
    ]
    for verdict in values["verdicts"]:
        lines += [f"[{verdict['status']}] {verdict['signature']}: {verdict['text']}", f"    {verdict['evidence']}"]
    lines += ["", f"{'':24s}{'this set':>10s}  random real images"]
    for name, distance in values["distances"].items():
        spread = "" if distance["reference_std"] is None else f" +- {_number(distance['reference_std'])}"
        lines.append(f"{_NAMES[name]:24s}{_number(distance['distilled']):>10s}  {_number(distance['reference_mean'])}{spread}")
    for name in ("precision", "recall", "density", "coverage"):
        lines.append(f"{name:24s}{_number(coverage[name]):>10s}  {_number(coverage['reference'][name])}")
    diversity, copying = values["diversity"], values["copying"]
    lines.append(f"{'diversity':24s}{_number(diversity['distilled']):>10s}  {_number(diversity['real'])}")
    lines.append(f"{'nearest real, ratio':24s}{_number(copying['ratio_median']):>10s}  1")
    if copying["share_copied"] is not None:
        lines.append(f"{'copies':24s}{100 * copying['share_copied']:>8.1f} %  (ratio under {copying['threshold']:.2f})")
    if trip := values["round_trip"]:
        alone = f"autoencoder alone {trip['autoencoder_psnr_db']:.1f} dB"
        lines.append(f"round trip of {trip['images']} real images {trip['psnr_db']:.1f} dB PSNR, {alone}")
    if normality := values["normality"]:
        lines += ["", f"share of latent dimensions that pass for Gaussian, 0.95 if they are ({normality['sample']})"]
        lines.append("level  timestep  Shapiro-Wilk  D'Agostino  Anderson-Darling  Henze-Zirkler")
        lines += [
            f"{row['level']:5d}  {row['timestep']:8d}  {row['shapiro']:12.2f}  {row['dagostino']:10.2f}  {row['anderson']:16.2f}  "
            f"{row['multivariate']:13.2f}"
            for row in normality["levels"]
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in values["notes"])])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
