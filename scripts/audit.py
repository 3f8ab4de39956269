"""Asks pip-audit about pinned versions, and keeps "no vulnerability is known" apart from "the service did not answer".

pip-audit itself ends with "No known vulnerabilities found" also where its service answered about no package at all.

Exit code: 0 where none is known or nothing could be asked, which is said; 1 where there is one; 2 where pip-audit failed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

UNREACHABLE = ("connection", "timed out", "timeout", "max retries", "resolve", "unreachable", "certificate", "proxy", "service")
"""Words of a message about a service that does not answer."""


def main(requirements: str) -> int:
    """Audit a file of pinned requirements."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps", "--disable-pip", "--timeout", "15"]
        command += ["--progress-spinner", "off", "--format", "json", "--output", str(answer)]
        run = subprocess.run(command, capture_output=True, text=True)
        try:
            packages = json.loads(answer.read_text(encoding="utf-8"))["dependencies"]
        except (OSError, ValueError, KeyError):
            last = run.stderr.strip().splitlines()[-1:] or ["no message"]
            if any(word in run.stderr.lower() for word in UNREACHABLE):
                print(f"NOTHING WAS AUDITED: the advisory service cannot be reached ({last[0]}).")
                return 0
            print(f"pip-audit failed: {last[0]}", file=sys.stderr)
            return 2
    return report(packages)


def report(packages: list[dict]) -> int:
    """Say what was found about each package of pip-audit's answer, and return the exit code."""
    audited = [package for package in packages if "skip_reason" not in package]
    found = [package for package in audited if package["vulns"]]
    for package in found:
        for known in package["vulns"]:
            fixed = ", ".join(known.get("fix_versions", [])) or "none yet"
            print(f"{package['name']} {package['version']}: {known['id']}, fixed in: {fixed}")
    if not audited:
        print(f"NOTHING WAS AUDITED: the advisory service knows none of the {len(packages)} packages, so it is not the one that was meant.")
        return 0
    skipped = len(packages) - len(audited)
    print(
        f"{len(audited)} packages audited, {len(found)} with known vulnerabilities{f', {skipped} could not be audited' if skipped else ''}."
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
