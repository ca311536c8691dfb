#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds to RESULTS/image.json, which syngate-bench has begun, what the container image takes.

Usage: image.py RESULTS [--quick]
SYNGATE_IMAGE names the image (default: syngate). Without an engine or the image the result says so.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time


def measure(engine, image, rounds):
    inspected = subprocess.run(
        [engine, "image", "inspect", "--format", "{{.Size}}", image], capture_output=True, text=True, check=False
    )
    if inspected.returncode != 0:
        raise LookupError(f"there is no image '{image}': build it, or name another one by SYNGATE_IMAGE")
    starts = []
    for _ in range(rounds):
        begin = time.monotonic()
        # Any command that is no option of HAProxy's is executed as it is.
        subprocess.run([engine, "run", "--rm", "--network", "none", image, "true"], capture_output=True, check=True)
        starts.append((time.monotonic() - begin) * 1000)
    return {"image": image, "engine": engine, "size_bytes": int(inspected.stdout), "start_ms": starts}


def main(directory, quick=False):
    path = pathlib.Path(directory) / "image.json"
    result = json.loads(path.read_text())
    image = os.environ.get("SYNGATE_IMAGE", "syngate")
    engine = shutil.which("docker") or shutil.which("podman")
    try:
        if engine is None:
            raise LookupError("there is neither docker nor podman")
        result["images"] = [measure(engine, image, 2 if quick else 10)]
    except (LookupError, subprocess.CalledProcessError) as error:
        print(f"image: not possible here: {error}", file=sys.stderr)
        result["impossible"].append({"what": "the container image", "why": str(error)})
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], "--quick" in sys.argv[2:])
