"""The config file of ``mindserve run``, as bytes: what is wrong with it is told, whatever it is.

With atheris (https://github.com/google/atheris), which has libFuzzer's options, as `scripts/fuzz.sh` runs it:

    python csrc/fuzz/fuzz_config_file.py [OPTIONS] [CORPUS ...]

The inputs that are kept are run by tests/test_fuzzers.py, without atheris.
"""

from __future__ import annotations

import sys


def run(data: bytes) -> None:
    """One file.

    Raises:
        AssertionError: it was not answered as it has to be; any other error is a finding, too.
    """
    # Here, so that atheris has its hands on them first.
    from mindserve.configfile import ConfigFileError
    from mindserve.configfile.document import parse_leniently
    from mindserve.configfile.load import read

    try:
        node, problems = parse_leniently(data, "config.yaml")
        draft = read(node, "config.yaml", "/nowhere", problems)
        file = draft.finish()
    except ConfigFileError as error:
        assert error.problems, "an error without a problem"
        for problem in error.problems:
            assert problem.text, "a problem without a text"
            # It repeats what the file says, maybe as escapes, in a sentence.
            assert len(problem.text) <= 10 * len(data) + 1000, f"a problem of {len(problem.text)} characters"
            assert problem.place.line >= 0
            assert problem.place.column >= 0
        return
    assert file.settings is not None
    assert not draft.problems


def main() -> None:
    """Let atheris look for more."""
    import atheris

    with atheris.instrument_imports(include=["mindserve.configfile", "mindserve.config", "yaml"]):
        run(b"")
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
