#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds to RESULTS/image.json, which syngate-bench has begun, what the container image takes.

Usage: image.py RESULTS [--quick]
SYNGATE_IMAGE names the image (default: syngate), SYNGATE_ENGINE the engine (default: docker, else podman). Without an engine or the image the result says so.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

CONFIGURATION = """defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend web
    bind :80
    http-request return status 200
"""
DIRECTORY = "/usr/local/etc/haproxy"
PATIENCE_S = 30


def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def listens(process):
    """Whether somebody listens on port 80 in the process' network namespace."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if local.endswith(":0050") and state == "0A":  # port and TCP_LISTEN, in hexadecimal
                    return True
    return False


def start(engine, image, directory, alone):
    """Milliseconds from the engine's start until HAProxy listens, and who gates it."""
    name = f"syngate-bench-{os.getpid()}"
    before, after = (["--entrypoint", "haproxy"], ["-f", f"{DIRECTORY}/haproxy.cfg"]) if alone else ([], [])
    options = ["--detach", "--name", name, "--network", "none", "--cap-add=BPF", "--cap-add=NET_ADMIN"]
    volume = ["--volume", f"{directory}:{DIRECTORY}:ro"]
    begin = time.monotonic()
    try:
        said(engine, "run", *options, *volume, *before, image, *after)
        process = said(engine, "inspect", "--format", "{{.State.Pid}}", name)
        while not listens(process):
            if time.monotonic() > begin + PATIENCE_S:
                raise LookupError(f"HAProxy in {image} does not listen: {said(engine, 'logs', name)}")
            time.sleep(0.001)
        took = (time.monotonic() - begin) * 1000
        mode = "" if alone else json.loads(said(engine, "exec", name, "syngate", "status", "--json"))["gate"]["mode"]
        return took, mode
    finally:
        subprocess.run([engine, "rm", "--force", "--time", "1", name], capture_output=True, check=False)


def measure(engine, image, rounds):
    try:
        size = int(said(engine, "image", "inspect", "--format", "{{.Size}}", image))
    except subprocess.CalledProcessError as error:
        raise LookupError(f"there is no image '{image}': build it, or name another one by SYNGATE_IMAGE") from error
    result = {"image": image, "engine": engine, "size_bytes": size, "start_ms": [], "start_alone_ms": []}
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        pathlib.Path(directory, "haproxy.cfg").write_text(CONFIGURATION)
        for _ in range(rounds):
            took, result["mode"] = start(engine, image, directory, False)
            result["start_ms"].append(took)
            result["start_alone_ms"].append(start(engine, image, directory, True)[0])
    return result


def main(directory, quick=False):
    path = pathlib.Path(directory) / "image.json"
    result = json.loads(path.read_text())
    image = os.environ.get("SYNGATE_IMAGE", "syngate")
    engine = shutil.which(os.environ.get("SYNGATE_ENGINE", "docker")) or shutil.which("podman")
    try:
        if engine is None:
            raise LookupError("there is neither docker nor podman")
        result["images"] = [measure(engine, image, 2 if quick else 10)]
    except (LookupError, subprocess.CalledProcessError) as error:
        why = f"{error}: {error.stderr.strip()}" if getattr(error, "stderr", None) else str(error)
        print(f"image: not possible here: {why}", file=sys.stderr)
        result["impossible"].append({"what": "the container image", "why": why})
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], "--quick" in sys.argv[2:])
