"""The crates in the program: third-party notices, and a bill of materials in CycloneDX.

    python3 .ci/materials.py notices|sbom

Reads Cargo.lock through cargo, and the license files from cargo's cache. Only crates that are built into
the program count, not those of tests and builds.
"""

import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import uuid

LICENSE_FILES = re.compile(r"^(licen[cs]e|copying|notice|unlicense)", re.I)

# Licenses that ask for no copy of their text.
WITHOUT_NOTICE = {"0BSD", "CC0-1.0", "Unlicense"}


def cargo(*arguments):
    command = ["cargo", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def crates():
    """The packages below the program, sorted by name and version."""
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--locked"))
    tree = cargo("tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}")
    built = set()
    for line in tree.splitlines():
        name, version = line.split()[:2]
        built.add((name, version.lstrip("v")))
    packages = [p for p in metadata["packages"] if (p["name"], p["version"]) in built]
    root = metadata["resolve"]["root"]
    own = [p for p in packages if p["id"] == root]
    others = [p for p in packages if p["id"] != root]
    assert own and len(others) > 50, f"only {len(others)} crates were seen"
    return own[0], sorted(others, key=lambda p: (p["name"], p["version"]))


def checksums():
    """The checksums of Cargo.lock, by name and version."""
    found = {}
    for block in open("Cargo.lock", encoding="utf-8").read().split("[[package]]"):
        fields = dict(re.findall(r'^(name|version|checksum) = "(.*)"$', block, re.M))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def notices():
    _, others = crates()
    print("oncegate is built with these crates:\n")
    for package in others:
        print(f"  {package['name']} {package['version']} ({package['license']})")
    texts = {}
    for package in others:
        folder = os.path.dirname(package["manifest_path"])
        paths = sorted(glob.glob(os.path.join(folder, "*")))
        files = [p for p in paths if os.path.isfile(p) and LICENSE_FILES.match(os.path.basename(p))]
        license = package["license"] or ""
        if not files and "Apache-2.0" in license and " AND " not in license:
            # The crate has no copy of the license; it is this project's own.
            files = ["LICENSE"]
        if not files and license not in WITHOUT_NOTICE:
            raise SystemExit(f"{package['name']} {package['version']} ({license}) has no license text")
        for path in files:
            text = open(path, encoding="utf-8", errors="replace").read().strip()
            texts.setdefault(text, []).append(f"{package['name']} {package['version']}")
    # One text for all crates that have it, in the order of the crates.
    for text, names in texts.items():
        print("\n" + "-" * 78)
        print(", ".join(dict.fromkeys(names)) + ":\n")
        print(text)


def sbom():
    own, others = crates()
    hashes = checksums()

    def component(package, kind):
        name, version = package["name"], package["version"]
        purl = f"pkg:cargo/{name}@{version}"
        found = {
            "type": kind,
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
        }
        if (name, version) in hashes:
            found["hashes"] = [{"alg": "SHA-256", "content": hashes[name, version]}]
        return found

    components = [component(package, "library") for package in others]
    digest = hashlib.sha256(json.dumps(components).encode()).digest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": component(own, "application")},
        "components": components,
    }
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    {"notices": notices, "sbom": sbom}[sys.argv[1]]()
