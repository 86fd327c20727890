"""Which URLs count as the same page."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_data.dedup.urls import normalize_url


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("http://example.com", "https://www.EXAMPLE.com:443/"),
        ("http://example.com:80/a/", "http://example.com/a#part"),
        ("http://example.com/a?b=2&a=1", "http://example.com/a?a=1&b=2&utm_source=mail&fbclid=x"),
        ("http://example.com/%7euser/caf%c3%a9", "http://example.com/~user/café"),
        ("http://user:secret@example.com./index.html", "http://example.com"),
        ("http://[::1]:80/a", " https://[::1]/a\n"),
    ],
)
def test_the_same_page(url, other):
    assert normalize_url(url) == normalize_url(other)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("http://example.com/a", "http://example.com/A"),
        ("http://example.com/a", "http://example.org/a"),
        ("http://example.com/a", "http://news.example.com/a"),
        ("http://example.com:8080/a", "http://example.com/a"),
        ("http://example.com/a?page=1", "http://example.com/a?page=2"),
        ("http://example.com/a?q=", "http://example.com/a?r="),
        ("http://example.com/a%2Fb", "http://example.com/a/b"),
        ("http://example.com/a%3Fb", "http://example.com/a?b"),
        ("http://example.com/#!/one", "http://example.com/#!/two"),
    ],
)
def test_different_pages(url, other):
    assert normalize_url(url) != normalize_url(other)


@pytest.mark.parametrize(
    "url", ["", "no url", "mailto:someone@example.com", "http://[broken", "http://x:port/", "http://"]
)
def test_what_is_no_web_address_stays(url):
    assert normalize_url(f" {url} ") == url


@given(
    st.text(),
    st.lists(st.tuples(st.text(), st.text()), max_size=3),
    st.text(st.characters(codec="latin-1"), max_size=5),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_has_a_normal_form_that_stays_as_it_is(path, parameters, tail):
    url = "http://example.com/" + path + "?" + "&".join(f"{k}={v}" for k, v in parameters) + tail
    once = normalize_url(url)
    assert normalize_url("http://" + once) == once
    assert isinstance(normalize_url(path), str)
