"""Prints the parts of a compose file that a test compares, as JSON: bind mounts, named volumes, dependencies."""

import json
import sys

import yaml

with open(sys.argv[1]) as file:
    compose = yaml.safe_load(file)
mounts = [
    volume.split(":")[0]
    for service in compose["services"].values()
    for volume in service.get("volumes", [])
]
print(json.dumps({
    "services": sorted(compose["services"]),
    "depends": sorted(name for service in compose["services"].values() for name in service.get("depends_on", {})),
    "files": sorted(mount for mount in mounts if mount.startswith(".")),
    "volumes": sorted(mount for mount in mounts if not mount.startswith(".")),
    "declared": sorted(compose.get("volumes", {})),
}))
