"""Parses YAML like Beats do: dotted keys are sections, and each setting has its line.

Names in ``${...}`` are replaced as libbeat does. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from sessiond.config.load import yaml_errors
from sessiond.errors import ConfigError

MAX_SETTINGS: Final = 100_000  # a bound for files with self-references
_REFERENCE: Final = re.compile(r"\$\{([^{}:]+)(?::([^{}]*))?\}")


class Setting:
    """A part of the file: a value, a list (``items``) or a section (``members``).

    ``used`` is set when its value is taken: unused settings have no counterpart. ``first_line`` is
    the number of the first line of a multi-line text.
    """

    def __init__(self, line: int) -> None:
        self.line = line
        self.first_line = line
        self.value: Any = None
        self.items: list[Setting] = []
        self.members: dict[str, Setting] = {}
        self.used = False

    def at(self, path: str) -> Setting | None:
        """Return the setting at a dotted path below this one; None if there is none."""
        found: Setting | None = self
        for name in path.split("."):
            found = found.members.get(name) if found is not None else None
        return found

    def take(self, path: str = "") -> Any:  # noqa: ANN401 - whatever YAML holds
        """Return the value at a dotted path, and mark it as used; None if there is none."""
        found = self.at(path) if path else self
        if found is None:
            return None
        found.use()
        return found.plain()

    def use(self) -> None:
        """Mark this setting and everything below it as used."""
        self.used = True
        for below in self._below():
            below.use()

    def plain(self) -> Any:  # noqa: ANN401 - whatever YAML holds
        """Return the value as a Python object: text, number, list, dict."""
        if self.members:
            return {name: member.plain() for name, member in self.members.items()}
        if self.items:
            return [item.plain() for item in self.items]
        return self.value

    def unused(self, path: str = "") -> Iterator[tuple[str, int]]:
        """Yield path and line of unused settings; a completely unused section as a whole."""
        if self.used:
            return
        if not any(below.touched() for below in self._below()):
            yield path, self.line
            return
        for name, member in self.members.items():
            yield from member.unused(f"{path}.{name}" if path else name)
        for index, item in enumerate(self.items):
            yield from item.unused(f"{path}[{index}]")

    def touched(self) -> bool:
        """Return whether anything in it was used."""
        return self.used or any(below.touched() for below in self._below())

    def _below(self) -> list[Setting]:
        return [*self.members.values(), *self.items]


def read(text: str, source: str, variables: Mapping[str, str]) -> Setting:
    """Parse a configuration; ``source`` names it in messages, ``variables`` are for ``${...}``.

    Raises ConfigError, one line, if the text is not YAML or not a section.
    """
    root = Setting(1)
    with yaml_errors(source):
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{source}: no configuration: a section with settings is expected")
        if node is not None:
            _Reader(loader, variables).section(node, root)
    return root


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, variables: Mapping[str, str]) -> None:
        self._loader = loader
        self._variables = variables
        self._made = 0

    def section(self, node: yaml.MappingNode, section: Setting) -> None:
        self._loader.flatten_mapping(node)
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is no text", key.start_mark
                )
            at = section
            names = key.value.split(".")
            for name in names:
                if name not in at.members:
                    at.members[name] = self._new(key)
                at = at.members[name]
            self._fill(value, at)

    def _new(self, node: yaml.Node) -> Setting:
        self._made += 1
        if self._made > MAX_SETTINGS:
            raise ValueError(f"more than {MAX_SETTINGS} settings")
        return Setting(node.start_mark.line + 1)

    def _fill(self, node: yaml.Node, setting: Setting) -> None:
        if isinstance(node, yaml.MappingNode):
            self.section(node, setting)
        elif isinstance(node, yaml.SequenceNode):
            for each in node.value:
                item = self._new(each)
                setting.items.append(item)
                self._fill(each, item)
        else:
            value = self._loader.construct_object(node)
            line = node.start_mark.line + 1
            block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
            setting.first_line = line + 1 if block else line
            setting.value = self._expanded(value) if isinstance(value, str) else value

    def _expanded(self, text: str) -> str:
        def replaced(match: re.Match[str]) -> str:
            found = self._variables.get(match[1], match[2])
            return match[0] if found is None else found

        return _REFERENCE.sub(replaced, text)
