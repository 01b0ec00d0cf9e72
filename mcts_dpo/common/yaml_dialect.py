"""The YAML of settings files: how scalars are read and text is written. In: nodes. Out: values, and back."""

from __future__ import annotations

import re
from typing import Any

import yaml

_INT = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|[0-9][0-9_]*)$")
_WHOLE = re.compile(r"[-+]?[0-9]+[eE]\+?[0-9]{1,2}$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: 1e-6 is a number, 1:30 and 2024-01-01 are text, and so are yes and no.

    (Version 1.1, PyYAML's own, reads "1e-6" as text, "1:30" as 90, "010" as 8 and the setting "yes" as true.)
    """

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own way to say it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that is set twice is an error."""
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key_node.value!r} is set twice", problem_mark=key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    if _WHOLE.match(text):
        mantissa, exponent = re.split("[eE]", text)
        return int(mantissa) * int(10 ** int(exponent))
    return int(text, 16 if "x" in text else 10)


Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), ["<"])
Loader.add_constructor("tag:yaml.org,2002:int", _int)


class Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would take for something other than text; long text as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: every value is written out."""
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    visible = data.replace("\n", "").isprintable()
    # PyYAML writes control characters and exotic line ends as they are unless it is told to escape.
    style = '"' if not visible else "|" if "\n" in data.strip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
Dumper.add_representer(str, _text)
