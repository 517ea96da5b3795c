"""What the parsers of the commands share; reading arguments must not import torch."""

import argparse
import functools
import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from d2_isonet.config.model_zoo import all_names, get_config_file
from d2_isonet.utils.command_line import typed_program
from d2_isonet.utils.messages import INTERRUPTED, UserError, nearest, readable_errors

_CONFIG = "a yaml file, or the name of a config such as risonet50_fpn"
# The options of several commands: a command names one, and changes what is different about it.
SHARED: dict[str, dict[str, Any]] = {
    "--config-file FILE": {"help": _CONFIG, "required": True},
    "--weights FILE": {"help": "the model_final.pth of its training", "required": True},
    "--trust-pickle": {
        "help": "load .pkl weights too; a pickle can run any code that its author put in"},
    "opts": {"nargs": argparse.REMAINDER, "metavar": "KEY VALUE",
        "help": "at the end of the line: pairs, also KEY=VALUE, that change the config"},
    "--train-annotations FILE": {"dest": "train_json", "old": ("--train-json",),
        "help": "COCO json to train on (default: DATASETS.TRAIN)"},
    "--train-images DIR": {"help": "folder of its images (default: none)"},
}  # fmt: skip
OWN_DATA = "your own COCO-format dataset, whose file defines the classes"
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
        check: Callable[[argparse.Namespace], str] = lambda args: "",
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
        self._limits: list[tuple[argparse.Action, float, float]] = []

    def group(self, place: str | argparse._ActionsContainer) -> Callable[..., None]:
        """The function add(option, help, default, **more) of a new group, or of a container.

        Args of the function:
            option: as --help shows it: "--seed N", "--fuse {on,off}", "--input PATH ...", or
                "--resume" for a switch. What SHARED has about it need not be given.
            default: its type is that of the values.
            least, most: limits of a number.
            old: earlier names, which --help does not show. An abbreviation that fits the name of
                today and another option means the other: it did when the name was new.
            more: what argparse's add_argument takes.
        """
        container = self.add_argument_group(place) if isinstance(place, str) else place
        return functools.partial(self._add, container)

    def _add(self, container, option: str, help: str = "", default: Any = None, **more) -> None:
        name, *value = option.split()
        more = {"least": None, "most": math.inf, "old": None, **SHARED.get(option, {}), **more}
        least, most, old = (more.pop(key) for key in ("least", "most", "old"))
        more["help"] = help or more["help"]
        if name.startswith("-"):
            more = {**_kind_of(value, default), **more}
        action = container.add_argument(name, **more)
        if least is not None:
            self._limits.append((action, least, most))
        if old is not None:
            self._option_string_actions.update(dict.fromkeys(old, action))
            self._new_names.update(action.option_strings)

    def run(self, command: Callable, arguments: list[str] | None, interrupted="interrupted") -> int:
        """Call `command` with the arguments and return its exit code, 0 if it returns None.

        A mistake of the user ends in one line, and Ctrl-C in the line `interrupted`.
        """
        args = self.parse_args(arguments)
        try:
            with readable_errors():
                return command(args) or 0
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            return INTERRUPTED

    def parse_args(self, args=None, namespace=None):
        """The arguments; config_file is a path, also if the name of a config was given."""
        parsed = super().parse_args(args, namespace)
        if getattr(parsed, "config_file", None):
            try:
                parsed.config_file = config_path(parsed.config_file)
            except UserError as error:
                self.error(f"--config-file: {error}")
        problem = self._problem_of_limits(parsed) or self._check(parsed)
        if problem:
            self.error(problem)
        return parsed

    def _problem_of_limits(self, parsed: argparse.Namespace) -> str:
        for action, least, most in self._limits:
            value = getattr(parsed, action.dest)
            if value is not None and not least <= value <= most:
                legal = f"at least {least}" if most == math.inf else f"from {least} to {most}"
                return f"{action.option_strings[0]} is {value:.12g}; it must be {legal}"
        return ""

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


def _kind_of(value: list[str], default: Any) -> dict[str, Any]:
    """What argparse needs to know of an option's values, such as ["{fgsm,bim}", "..."]."""
    if not value:
        return {"action": "store_true"}
    word, *several = value
    kind: dict[str, Any] = {"default": default, "nargs": "+" if several else None}
    kind |= {"choices": word.strip("{}").split(",")} if word[0] == "{" else {"metavar": word}
    example = default[0] if isinstance(default, list) else default
    return kind if isinstance(example, str | None) else {**kind, "type": type(example)}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds to the help of an option that it is required, or its default if the text lacks it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.option_strings and action.required:
            return f"{text} (required)"
        has_value = action.option_strings and action.nargs != 0
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
        name = re.sub(r"^(\./)?(configs/)?|\.(ya?ml|py)$", "", text)
        if name != text and name in all_names():
            raise UserError(f"there is no file {text}; did you mean the config {name}?") from None
        if not os.path.splitext(text)[1] and nearest(text, all_names()):
            raise
        return text


def training_parser(
    command: str, docstring: str | None, program: str | None = None, *, config: str = _CONFIG
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
    add = parser.group("what to run")
    add("--config-file FILE", f"{config} (required)", "", required=False)
    add("--resume", "continue from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", "evaluate MODEL.WEIGHTS instead of training")
    add("--trust-pickle")
    add("opts")
    add = parser.group("processes and machines")
    add("--num-gpus N", "GPUs per machine; on a CPU-only machine: number of processes", 1)
    add("--num-machines N", "machines that train together", 1)
    add("--machine-rank N", "number of this machine, from 0", 0)
    # detectron2's default is one port for every job of a user
    add("--dist-url URL", "tcp://HOST:PORT of the first machine; auto: a free port of this one",
        "auto")  # fmt: skip
    # detectron2's default: the first process evaluates COCO while the others wait
    add("--dist-timeout SECONDS", "how long processes wait for each other, at the start and later "
        "(default: 1800)", 1800.0)  # fmt: skip
    return parser


def run_training(parser: Parser, train: Callable, arguments: list[str] | None) -> int:
    """Call `train` with the arguments in every process that they ask for."""
    args = parser.parse_args(arguments)
    from d2_isonet.distributed.launch import run  # imports torch

    run(train, args)
    return 0
