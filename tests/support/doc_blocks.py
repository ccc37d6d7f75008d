"""The pages of the docs, and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: All pages whose code is checked, as paths below the repository.
PAGES = [
    "README.md",
    "runqy_delivery/README.md",
    "runqy_sandbox/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)

#: Stands for a secret in an example. It has blanks, so that it is refused if pasted.
PLACEHOLDER = re.compile(r"put the [^\"]+ here")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Its page, as a path below the repository.
        language: What is written after its three backticks.
        code: Its text, without the indent of the block.
        number: Its place among the blocks of the page, from 0.
    """

    page: str
    language: str
    code: str
    number: int

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def read_page(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text()


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page."""
    return [
        Block(page, found["language"], textwrap.dedent(found["code"]), number)
        for number, found in enumerate(_BLOCK.finditer(read_page(page)))
    ]


def all_blocks(*languages: str) -> list[Block]:
    """Return all blocks in some languages; without any, those of all languages."""
    return [
        block
        for page in PAGES
        for block in blocks_of(page)
        if not languages or block.language in languages
    ]


def script_of(block: Block) -> str:
    """Return the commands of a block, without prompts and output."""
    code = block.code.replace("\\\n", " ")
    lines = code.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return "\n".join(lines)


def commands_of(block: Block) -> list[list[str]]:
    """Return the commands of a block, each split into words."""
    commands: list[list[str]] = []
    for line in script_of(block).splitlines():
        command: list[str] = []
        for word in shlex.split(line, comments=True):
            if word == "&&":
                commands.append(command)
                command = []
            else:
                command.append(word)
        commands.append(command)
    return [command for command in commands if command]
