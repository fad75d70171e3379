"""Write tailbone.cdx.json, a bill of materials that wheels contain: ``python -m release.sbom``.

It is CycloneDX. The Go modules have the versions that are linked. The Python packages are chosen at
installation, so they are external components without a version, and have their requirement as a property.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import build
from release import go_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION = SchemaVersion.V1_7


def text(modules: Iterable[go_modules.GoModule]) -> str:
    """Return the bill of materials, checked against CycloneDX's schema; the same for the same sources."""
    with (build.ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    name, version = project["name"], project["version"]
    tailbone = Component(
        type=ComponentType.APPLICATION,
        name=name,
        version=version,
        description=project["description"],
        bom_ref=f"pkg:pypi/{name}@{version}",
        purl=PackageURL("pypi", name=name, version=version),
        licenses=[LicenseExpression(project["license"])],
    )
    library = Component(
        type=ComponentType.LIBRARY,
        name=build.LIBRARY,
        version=version,
        bom_ref=build.LIBRARY,
        licenses=[LicenseExpression(project["license"])],
    )
    packages = [_package(Requirement(line)) for line in project["dependencies"]]
    linked = [_module(module) for module in modules]
    bom = Bom(
        components=[library, *packages, *linked], serial_number=uuid5(NAMESPACE_URL, str(tailbone.purl))
    )
    bom.metadata.component = tailbone
    bom.register_dependency(tailbone, [library, *packages])
    bom.register_dependency(library, linked)
    document = json.loads(make_outputter(bom, OutputFormat.JSON, _VERSION).output_as_string())
    # The same sources have the same document.
    del document["metadata"]["timestamp"]
    written = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if errors := JsonStrictValidator(_VERSION).validate_str(written):
        raise SystemExit(f"not valid: {errors}")
    return written


def _package(requirement: Requirement) -> Component:
    name = canonicalize_name(requirement.name)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        is_external=True,
        bom_ref=f"pkg:pypi/{name}",
        purl=PackageURL("pypi", name=name),
        properties=[Property(name="tailbone:requirement", value=str(requirement))],
    )


def _module(module: go_modules.GoModule) -> Component:
    namespace, _, name = module.path.rpartition("/")
    purl = PackageURL("golang", namespace, name, module.version)
    return Component(
        type=ComponentType.LIBRARY,
        name=module.path,
        version=module.version,
        bom_ref=str(purl),
        purl=purl,
        licenses=[LicenseExpression(" AND ".join(module.spdx()))],
    )


if __name__ == "__main__":
    build.SBOM.write_text(text(go_modules.linked()))
