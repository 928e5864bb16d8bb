"""A web server of this machine for the pictures that the classifier is asked about, since it takes addresses."""

import contextlib
import functools
import http.server
import pathlib
import threading

IMAGES = pathlib.Path(__file__).resolve().parent.parent / "resnet50" / "images"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving_images(directory=IMAGES):
    """Gives the address under which the files of a directory can be had, only on this machine."""
    handler = functools.partial(_Quiet, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()
