"""The servable "image_downloader": an image's bytes by its address."""

import urllib.error
import urllib.parse
import urllib.request

from mindserve.server import register

TIMEOUT = 10
LIMIT = 16 << 20


def fetch(url):
    # No file:, above all.
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"only http and https are fetched, but the address is '{url}'")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content = response.read(LIMIT + 1)
    except (urllib.error.URLError, TimeoutError) as error:
        raise ValueError(f"'{url}' could not be fetched: {error}") from error
    if len(content) > LIMIT:
        raise ValueError(f"'{url}' has more than {LIMIT} bytes")
    return content


@register.register_method(output_names=["content"])
def download(url):
    content = register.add_stage(fetch, url, outputs_count=1)
    return content
