"""What the main process finds out for all of them."""

from collections.abc import Callable

from detectron2.utils import comm

from .findings import Finding, findings_table, raise_errors


def check_once(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Run `check` in the main process, print its table there, and raise its errors in every one.

    Raises:
        ValueError: there are errors among the findings, all in one message.
        Exception: `check` raised it, in the main process.
    """
    findings, error = [], None
    if comm.is_main_process():
        try:
            findings = check()
        except Exception as raised:  # for the others not to wait for it in vain
            error = raised
        if findings:
            print(findings_table(findings), flush=True)
    if comm.get_world_size() > 1:
        findings, failed = comm.all_gather((findings, error is not None))[0]
        if failed and error is None:
            raise ValueError("the check of the data failed in the main process, which says why")
    if error is not None:
        raise error
    raise_errors(findings)
    return findings
