"""Count the instructions of a request in master and worker, by function: ``python benchmarks/instructions.py``.

Needs valgrind and h2load. Counts don't depend on what else the machine does, so that small differences show; system
calls count as nothing. Under valgrind every model is slow, and so runs on a thread of its own.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from calls import add
from load import write_body
from models import make_copies, make_servables, make_services
from processes import process_tree

HERE = Path(__file__).resolve().parent
PREDICT = "/mindspore.serving.proto.MSService/Predict"
# What valgrind does not know by name is another library's.
_LINE = re.compile(r"^\s*([\d,]+) \([^)]*\)\s+[^:]*:(.*) \[(.*)\]$")


def main() -> None:
    """Start a server under valgrind, load it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="add_common", help="of the servable bench that takes two small tensors")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16, help="calls at once on each connection")
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--least", type=int, default=200, help="print functions of at least so many instructions")
    parser.add_argument("--totals", action="store_true", help="print no functions")
    parser.add_argument(
        "--idle", type=int, default=0, metavar="N", help="start N servables beside, which nobody calls; master only"
    )
    parser.add_argument("--token", action="store_true", help="each call shows a token, which the server asks for")
    parser.add_argument(
        "--classifier",
        choices=("predict", "native", "python"),
        help="call the servable classifier, by Predict, or the Classifier with a message that is read that way",
    )
    parser.add_argument(
        "--handler",
        choices=("Greet", "GreetAsync"),
        help="call a method of a user's service, which a function answers in Python, or a coroutine",
    )
    parser.add_argument("--header", action="store_true", help="as --token, of a server that does not ask")
    parser.add_argument("--split", action="store_true", help="each call is for a name that is split, see splits.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        make_servables(scratch / "servables", None)
        names = ["bench", *make_copies(scratch / "servables", options.idle)]
        body, path = scratch / "body", PREDICT
        # What some options need is imported only with them: trees from before there was that are counted as well.
        if options.classifier:
            import classifier

            names[0] = "classifier"
            if options.classifier == "predict":
                classifier.predict_call().write(body)
            else:
                classifier.write_request(options.classifier, body)
                path = classifier.CLASSIFY
        elif options.handler:
            directory = make_services(scratch / "servables")
            sys.path.insert(0, str(directory))
            from bench_pb2 import Item

            names[0] = "services"
            write_body(body, Item(name="foo", num=30).SerializeToString())
            path = f"/mindserve.bench.Bench/{options.handler}"
        elif options.split:
            import splits

            add(splits.NAME, options.method).write(body)
        else:
            add(method=options.method).write(body)
        # Each worker takes a minute to start under valgrind.
        traced = "no" if options.idle else "yes"
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--trace-children={traced}"]
        command += [f"--callgrind-out-file={scratch}/out.%p", sys.executable, str(HERE / "server.py")]
        command += [str(scratch / "servables"), "127.0.0.1:0", *names]
        token, keys = "", ""
        if options.token or options.header:
            # Only here: trees from before there were tokens are counted as well.
            from tokens import make_token

            token, keys = make_token(scratch)
        if options.token:
            command += ["--keys", keys]
        if options.handler:
            command += ["--service", "bench_pb2_grpc.add_BenchServicer_to_server"]
        if options.split:
            command += ["--split", splits.NAME, *map(str, splits.WEIGHTS)]
        with (scratch / "log").open("w") as log:
            server = subprocess.Popen(
                command, cwd=scratch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            load = ["h2load", f"-c{options.connections}", f"-m{options.streams}", f"-d{body}", "-w20", "-W26"]
            load += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
            load += ["-H", f"oauth_token: {token}"] if token else []
            load.append(f"http://{address}{path}")
            pids = process_tree(server.pid)[: 1 if options.idle else 2]
            _run([*load, "-n500"])
            _switch("on", pids)
            _run([*load, f"-n{options.requests}"])
            _switch("off", pids)
        finally:
            server.terminate()
            server.wait(60)
        for name, pid in zip(("master", "worker"), pids, strict=False):
            _print(name, scratch / f"out.{pid}", options.requests, None if options.totals else options.least)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=600)


def _switch(state: str, pids: list[int]) -> None:
    _run(["callgrind_control", "-i", state, *map(str, pids)])


def _print(name: str, counts: Path, requests: int, least: int | None) -> None:
    report = subprocess.run(
        ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(counts)],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout
    total = re.search(r"^([\d,]+) .*PROGRAM TOTALS", report, re.MULTILINE)
    assert total is not None
    print(f"{name}: {int(total[1].replace(',', '')) / requests:,.0f} instructions a request")
    if least is None:
        return
    print()
    for line in report.splitlines():
        if found := _LINE.match(line):
            each = int(found[1].replace(",", "")) / requests
            if each >= least and not found[2].startswith("0x"):
                print(f"{each:9,.0f}  {found[2][:110]}  [{Path(found[3]).name}]")


if __name__ == "__main__":
    main()
