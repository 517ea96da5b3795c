"""What the parsers of the commands share; reading arguments must not import torch."""

import argparse
import os
import re
import sys
from collections.abc import Callable

from d2_isonet.config.model_zoo import config_names, get_config_file
from d2_isonet.utils.command_line import typed_program
from d2_isonet.utils.messages import UserError, nearest

TRUST_PICKLE = "load .pkl weights too; a pickle can run any code that its author put in"
_EXAMPLES = "\nExamples:\n"
# A config key with a dot, and those without; the words from the first such word on are pairs.
_SECTIONS = "DATALOADER|DATASETS|GLOBAL|INPUT|MODEL|SOLVER|TEST|WANDB"
_SINGLE_KEYS = "CUDNN_BENCHMARK|FLOAT32_PRECISION|OUTPUT_DIR|SEED|VERSION|VIS_PERIOD"
_OLD_PAIRS = ("--opts", "--opt", "--op")  # once stood before the pairs of the demo
_PAIR = re.compile(rf"(?s)(({_SECTIONS})(\.[A-Z0-9_]+)+|{_SINGLE_KEYS})(=.*)?")


class Parser(argparse.ArgumentParser):
    """Shows the docstring of a command as its help, and answers a mistake in one line.

    Args:
        command: as in `d2-isonet COMMAND`; the examples of the docstring name it so.
        docstring: of the command's module: what it does, then "Examples:".
        program: what the user typed before the arguments; None: taken from sys.argv.
        usage: the arguments without which the command does not run.
        check: returns what is wrong with the parsed arguments, "" if nothing is.
    """

    def __init__(
        self,
        command: str,
        docstring: str | None,
        program: str | None = None,
        *,
        usage: str = "",
        check: Callable[[argparse.Namespace], str] | None = None,
    ):
        program = program or " ".join(typed_program())
        text = (docstring or "").replace(f"d2-isonet {command} ", f"{program} ")
        description, _, examples = text.partition(_EXAMPLES)
        super().__init__(
            prog=program if " -m " in program else program.removeprefix("python "),
            usage=f"%(prog)s {usage}",
            description=description,
            epilog=_EXAMPLES.lstrip() + examples if examples else None,
            formatter_class=_HelpFormatter,
        )
        self._check = check
        self._words: list[str] = []
        self._new_names: set[str] = set()

    def accept_old(self, action: argparse.Action, *spellings: str) -> None:
        """Accept earlier names of an option, which --help does not show.

        An abbreviation that fits its name of today and another option means the other: it did when
        the name was new.
        """
        self._option_string_actions.update(dict.fromkeys(spellings, action))
        self._new_names.update(action.option_strings)

    def parse_args(self, args=None, namespace=None):
        """The arguments; config_file is a path, also if the name of a config was given."""
        parsed = super().parse_args(args, namespace)
        if getattr(parsed, "config_file", None):
            try:
                parsed.config_file = config_path(parsed.config_file)
            except UserError as error:
                self.error(f"--config-file: {error}")
        problem = self._check(parsed) if self._check else ""
        if problem:
            self.error(problem)
        return parsed

    def parse_known_args(self, args=None, namespace=None):
        self._words = list(sys.argv[1:] if args is None else args)
        end = self._end_of_options()
        parsed, left = super().parse_known_args(self._words[:end], namespace)
        if end < len(self._words):
            parsed.opts = self._words[end + (self._words[end] in _OLD_PAIRS) :]
        return parsed, left

    def _end_of_options(self) -> int:
        """Where the config pairs begin, if an option that takes several values might take them."""
        is_greedy = any(action.nargs == "+" for action in self._actions)
        if is_greedy and any(action.dest == "opts" for action in self._actions):
            for number, word in enumerate(self._words):
                if word in _OLD_PAIRS or _PAIR.fullmatch(word):
                    return number
        return len(self._words)

    def error(self, message: str):
        """End with one line and exit code 2; a misspelt option is named with the nearest one."""
        unknown = next(filter(self._is_unknown, self._words), "").partition("=")[0]
        if unknown and unknown not in message:
            message = f"unrecognized arguments: {unknown}"
        flags = [flag for a in self._actions for flag in a.option_strings]
        self.exit(2, f"{self.prog}: error: {message}{nearest(unknown, flags) if unknown else ''}\n")

    def _is_unknown(self, word: str) -> bool:
        is_flag = word.startswith("--") and len(word) > 2
        return is_flag and not self._get_option_tuples(word)

    def _get_option_tuples(self, option_string: str):
        """The options that start so; two spellings of one option are one."""
        found = super()._get_option_tuples(option_string)
        found = [x for x in found if x[1] not in self._new_names] or found
        return list({id(action): (action, *rest) for action, *rest in reversed(found)}.values())


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds to the help of an option its default, if the text does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        has_value = action.option_strings and action.nargs != 0 and not action.required
        is_shown = action.default is not None and action.default != "" and "default" not in text
        return f"{text} (default: %(default)s)" if has_value and is_shown else text


def config_path(text: str) -> str:
    """The file of a config that d2_isonet has by that name; a path is returned as it is.

    Raises:
        UserError: there is no such file, and it is nearly the name of a config.
    """
    if os.path.exists(text):
        return text
    try:
        return get_config_file(text)
    except (UserError, FileNotFoundError):
        if not os.path.splitext(text)[1] and nearest(text, config_names()):
            raise
        return text


def add_pairs(add: Callable[..., argparse.Action]) -> None:
    """Add the config pairs with the add_argument of a parser or a group."""
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="at the end of the line: pairs, also KEY=VALUE, that change the config",
    )


def add_training_data(parser: Parser) -> Callable[..., argparse.Action]:
    """Add --train-annotations and --train-images; return what adds to their group."""
    add = parser.add_argument_group(
        "your own COCO-format dataset, whose file defines the classes"
    ).add_argument
    annotations = add("--train-annotations", metavar="FILE", dest="train_json",
                      help="COCO json to train on (default: DATASETS.TRAIN)")  # fmt: skip
    parser.accept_old(annotations, "--train-json")
    add("--train-images", metavar="DIR", help="folder of its images (default: none)")
    return add


def training_parser(
    command: str,
    docstring: str | None,
    program: str | None = None,
    *,
    config: str = "a yaml file, or the name of a config such as risonet50_fpn",
) -> Parser:
    """The options of detectron2's default_argument_parser, and --trust-pickle.

    detectron2's own parser is not used because it takes seconds to import, even for --help; a test
    compares the two option by option.

    Args:
        config: what --config-file takes.
    """

    def check(args: argparse.Namespace) -> str:
        return "" if args.config_file else f"--config-file is missing: give {config}"

    usage = "--config-file FILE [options] [KEY VALUE ...]"
    parser = Parser(command, docstring, program, usage=usage, check=check)
    add = parser.add_argument_group("what to run").add_argument
    add("--config-file", metavar="FILE", default="", help=f"{config} (required)")
    add("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS instead of training")
    add("--trust-pickle", action="store_true", help=TRUST_PICKLE)
    add_pairs(add)
    _add_processes(parser)
    return parser


def _add_processes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("processes and machines").add_argument
    add("--num-gpus", type=int, default=1, metavar="N",
        help="GPUs per machine; on a CPU-only machine: number of processes")  # fmt: skip
    add("--num-machines", type=int, default=1, metavar="N", help="machines that train together")
    add("--machine-rank", type=int, default=0, metavar="N", help="number of this machine, from 0")
    add(
        "--dist-url",
        metavar="URL",
        default="auto",  # detectron2's is one port for every job of a user
        help="tcp://HOST:PORT of the first machine; auto: a free port of this one",
    )
    add(
        "--dist-timeout",
        type=float,
        default=1800.0,  # detectron2's: the first process evaluates COCO while the others wait
        metavar="SECONDS",
        help="how long processes wait for each other, at the start and later (default: 1800)",
    )
