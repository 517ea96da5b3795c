#!/usr/bin/env python
"""Check a data set before it costs time: annotations, image files, and whether they fit a config.

python tools/check_dataset.py --config-file configs/risonet50_c4.yaml
python tools/check_dataset.py --json instances.json --images images
python tools/check_dataset.py --data-root imagenet

Ends with 1 where a training would be stopped. A file is looked at once, until it changes.
"""

import argparse
import sys


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", default="", help="yaml whose DATASETS are checked")
    add("--json", metavar="FILE", help="COCO annotations to check, with --images")
    add("--images", metavar="DIR", help="the folder of their images")
    add("--data-root", metavar="DIR", help="a folder with train/<class>/ and val/<class>/")
    add("--eval-only", action="store_true", help="check only what an evaluation needs")
    depth = parser.add_mutually_exclusive_group().add_argument
    depth("--full", action="store_true", help="look at every image (the default)")
    depth("--quick", action="store_true", help="look at DATASETS.CHECKED_IMAGES, as a run does")
    add("--json-report", metavar="FILE", help="write all findings, with all names, as json")
    add("--repair", metavar="FILE", help="write the --json with what it lacks filled in, and end")
    add("opts", nargs=argparse.REMAINDER, help="at the end: KEY VALUE pairs that change the config")
    return parser.parse_args()


def main(args) -> int:
    from d2_isonet.commands.check_data import findings_of, write_report
    from d2_isonet.preflight.findings import findings_table
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        findings = findings_of(args)
        print(findings_table(findings))
        if args.json_report:
            write_report(findings, args.json_report)
    return int(any(finding.severity == "error" for finding in findings))


if __name__ == "__main__":
    sys.exit(main(parse_args()))
