"""The AWS chain: settings are read whenever a bucket is opened, what botocore knows of S3 once."""

import pytest

from resources.places.s3.aws_chain import read_aws_chain


def test_settings_are_read_anew_and_the_description_of_s3_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    first = read_aws_chain()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    second = read_aws_chain()
    assert (first.endpoint, second.endpoint) == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert first.session is not second.session
    loaders = [each.session.get_component("data_loader") for each in (first, second)]
    assert loaders[0] is loaders[1]
