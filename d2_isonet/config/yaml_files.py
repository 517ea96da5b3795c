"""Validates a yaml config and the files it inherits from before anything is built from them."""

import itertools
import os
import re

import yaml
from fvcore.common.config import BASE_KEY

from d2_isonet.utils.files import read_regular
from d2_isonet.utils.messages import MissingFileError, UserError, nearest

_MOST_BYTES = 1 << 18  # of a file and all that it inherits; the longest here has two thousand
_BYTES_OF_A_READ = 1 << 10  # so that the number of files is limited too
_MOST_DIGITS = 100  # in a row
_MOST_NODES = 100_000  # with every alias written out


def check_yaml_files(path: str, inherited_by: tuple[str, ...] = (), read: int = 0) -> int:
    """Raise unless yaml's safe loader can read `path` and every _BASE_ it leads to.

    It counts the values before it builds them: nine lines of aliases can mean a billion words. A
    file that two others inherit from counts twice, as it is read twice.

    Args:
        read: the bytes of the files before it; the number with this one is returned.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: a file is no mapping in yaml, asks for Python objects, has too many values, or
            inherits from itself; the files have too many bytes together.
    """
    path = os.path.abspath(path)
    if path in inherited_by:
        circle = " -> ".join([*inherited_by[inherited_by.index(path) :], path])
        raise UserError(f"{path}: _BASE_ goes in a circle ({circle})", "take one of them out")
    asked = f"{inherited_by[-1]}: _BASE_" if inherited_by else "--config-file"
    if os.path.isdir(path):
        raise UserError(f"{asked}: {path} is a folder", "give a yaml file")
    if path.endswith(".py"):
        raise UserError(f"{asked}: {path} is a LazyConfig", "d2-isonet train-lazy trains it")
    if not os.path.exists(path):
        folder, name = os.path.split(path)
        there = os.listdir(folder) if os.path.isdir(folder) else []
        raise MissingFileError(f"{asked}: there is no file {path}{nearest(name, there)}")
    content = read_yaml(path)
    read += os.path.getsize(path) + _BYTES_OF_A_READ
    if read > _MOST_BYTES:
        first = (*inherited_by, path)[0]
        raise UserError(f"{first}: too many files, or too long ones, by _BASE_", "leave some out")
    for base in _bases(path, content):
        read = check_yaml_files(base, (*inherited_by, path), read)
    return read


def read_yaml(path: str) -> dict:
    """The mapping in a yaml file, without its _BASE_; raises UserError if it is none."""
    text = read_regular(path, _MOST_BYTES)
    if re.search(rb"\d{%d}" % _MOST_DIGITS, text):
        raise UserError(f"{path} has a number of {_MOST_DIGITS} or more digits", "correct it")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_number_of_nodes(path, node)
        content = loader.construct_document(node) if node else None
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply", "that is no config") from error
    except yaml.reader.ReaderError as error:
        what = f"{path} is no text (at position {error.position}: {error.reason})"
        raise UserError(what, "give the yaml file") from error
    except yaml.MarkedYAMLError as error:
        raise UserError(_marked(path, error)) from error
    # the safe loader raises these if a value does not fit its tag, as in "!!int x" or 2020-99-99
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        if str(error).startswith(path):
            raise
        raise UserError(f"{path}: a value is not of its yaml type ({error})") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"{path}: this is no yaml of KEY: VALUE lines, but {kind}")
    return content


def _marked(path: str, error: yaml.MarkedYAMLError) -> str:
    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    message = f"{path}{line}: {error.problem}"
    if isinstance(error, yaml.constructor.ConstructorError) and "the tag" in message:
        message += ". A tag can ask for Python code (none was run), and a config needs no tag: "
        message += "remove it"
    return message


def _check_number_of_nodes(path: str, root: yaml.Node | None) -> None:
    sizes: dict[int, int] = {}  # by node; 0 while it is being counted

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            if isinstance(node, yaml.MappingNode):
                children = itertools.chain.from_iterable(children)
            sizes[id(node)] = 1 + sum(map(size, children))
        elif sizes[id(node)] == 0:
            raise UserError(f"{path}: an alias stands for a value that contains it")
        return sizes[id(node)]

    if root is not None and size(root) > _MOST_NODES:
        what = f"{path} stands for {size(root):.1e} values once its aliases (*name) are written out"
        raise UserError(f"{what}, more than {_MOST_NODES}", "that is no config")


def _bases(path: str, content: dict) -> list[str]:
    """The files that `content` inherits from, resolved as in detectron2; addresses are refused."""
    bases = content.get(BASE_KEY, [])
    bases = bases if isinstance(bases, list) else [bases]
    for base in bases:
        if not isinstance(base, str) or not base:
            raise UserError(f"{path}: _BASE_ is {base!r}", "it must be the name of a yaml file")
        if "://" in base:
            raise UserError(f"{path}: _BASE_ is the address {base}", "save that file and name it")
    return [os.path.join(os.path.dirname(path), os.path.expanduser(base)) for base in bases]
