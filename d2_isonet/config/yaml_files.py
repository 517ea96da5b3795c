"""Validates a yaml config and the files it inherits from before anything is built from them."""

import itertools
import os

import yaml
from fvcore.common.config import BASE_KEY

from d2_isonet.utils.messages import MissingFileError, UserError, nearest

_MOST_BYTES = 1 << 20  # the longest config here has two thousand
_MOST_NODES = 100_000  # with every alias written out


def check_yaml_files(path: str, inherited_by: tuple[str, ...] = ()) -> None:
    """Raise unless yaml's safe loader can read `path` and every _BASE_ it leads to.

    It counts the values before it builds them: nine lines of aliases can mean a billion words.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: a file is no mapping in yaml, asks for Python objects, has too many values, or
            inherits from itself.
    """
    path = os.path.abspath(path)
    if path in inherited_by:
        circle = " -> ".join([*inherited_by[inherited_by.index(path) :], path])
        raise UserError(f"{path}: _BASE_ goes in a circle ({circle})", "take one of them out")
    if not os.path.isfile(path):
        asked = f"{inherited_by[-1]}: _BASE_" if inherited_by else "--config-file"
        folder, name = os.path.split(path)
        there = os.listdir(folder) if os.path.isdir(folder) else []
        raise MissingFileError(f"{asked}: there is no file {path}{nearest(name, there)}")
    for base in _bases(path, _read(path)):
        check_yaml_files(base, (*inherited_by, path))


def _read(path: str) -> dict:
    if os.path.getsize(path) > _MOST_BYTES:
        raise UserError(f"{path} has {os.path.getsize(path)} bytes", "that is no config")
    with open(path, "rb") as file:
        text = file.read()
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
