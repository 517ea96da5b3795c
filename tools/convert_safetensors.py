#!/usr/bin/env python
"""Turn weights from .pth into .safetensors, or back, with what they say of themselves.

python tools/convert_safetensors.py backbone.pth backbone.safetensors
python tools/convert_safetensors.py backbone.safetensors backbone.pth
"""

import argparse

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN", help="only tensors are read, no code is run")
    parser.add_argument("target", metavar="OUT", help="in the other format")
    return parser.parse_args()


def main(args):
    from d2_isonet.checkpoint.conversion import change_format
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        number, left_out = change_format(args.source, args.target)
    print(
        f"{number} tensors written to {args.target}, which is a MODEL.WEIGHTS as {args.source} is"
    )
    if left_out:
        print(f"left out: {', '.join(left_out)} (no training can go on from {args.target})")


if __name__ == "__main__":
    main(parse_args())
