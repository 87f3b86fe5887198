"""Nodes out of EndpointSlices, as the API of Kubernetes writes them."""

import json
from typing import Any

import pytest

from enforcement.rules.endpointslices import read_page, targets_in
from enforcement.rules.targetfile import Target


def endpoint(address: str, pod: str, **conditions: bool) -> dict[str, Any]:
    """As a controller writes it; fields that we do not read are there too."""
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False} | conditions,
        "nodeName": "gpu-7",
        "targetRef": {"kind": "Pod", "namespace": "models", "name": pod, "uid": "6c0e"},
        "zone": "eu-1a",
    }


def slices(*endpoints: dict[str, Any], **fields: Any) -> dict[str, Any]:
    one = {
        "metadata": {
            "name": "vllm-x7k2p",
            "namespace": "models",
            "labels": {"app": "vllm", "kubernetes.io/service-name": "vllm"},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8000}],
    }
    return {
        "kind": "EndpointSliceList",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"resourceVersion": "8123"},
        "items": [one | fields],
    }


def targets(*pages: dict[str, Any]) -> list[Target]:
    return targets_in([read_page(json.dumps(page).encode()) for page in pages])


def test_a_ready_pod_is_a_node_with_what_is_known_of_it() -> None:
    assert targets(slices(endpoint("10.1.0.4", "vllm-0"))) == [
        Target(
            "models/vllm-0",
            "http://10.1.0.4:8000",
            labels={"namespace": "models", "service": "vllm", "node": "gpu-7", "zone": "eu-1a"},
        )
    ]


def test_pods_that_get_no_calls_are_none() -> None:
    page = slices(
        endpoint("10.1.0.4", "starting", ready=False),
        endpoint("10.1.0.5", "ending", terminating=True),
        {"addresses": ["10.1.0.6"], "conditions": {}},
        endpoint("10.1.0.7", "no-address") | {"addresses": []},
    )
    assert [target.name for target in targets(page)] == ["10.1.0.6:8000"]


def test_a_pod_of_two_services_and_two_families_is_one_node() -> None:
    first = slices(endpoint("10.1.0.4", "vllm-0"))
    second = slices(endpoint("fd00::4", "vllm-0"), addressType="IPv6")
    assert [target.base_url for target in targets(first, second)] == ["http://10.1.0.4:8000"]
    assert [target.base_url for target in targets(second)] == ["http://[fd00::4]:8000"]


@pytest.mark.parametrize(
    ("ports", "base_urls"),
    [
        ([{"port": 9090}, {"name": "http", "port": 8000}], ["http://10.1.0.4:8000"]),
        ([{"name": "api", "port": 9090}, {"port": 1}], ["http://10.1.0.4:9090"]),
        ([{"port": 443, "appProtocol": "https"}], ["https://10.1.0.4:443"]),
        ([{"name": "any"}], []),
        ([], []),
        (None, []),
    ],
)
def test_the_port_named_http_is_read_else_the_first(ports: Any, base_urls: list[str]) -> None:
    page = slices(endpoint("10.1.0.4", "vllm-0"), ports=ports)
    assert [target.base_url for target in targets(page)] == base_urls


def test_long_names_are_not_cut_into_one() -> None:
    page = slices(endpoint("10.1.0.4", "p" * 120 + "a"), endpoint("10.1.0.5", "p" * 120 + "b"))
    assert [target.name for target in targets(page)] == ["10.1.0.4:8000", "10.1.0.5:8000"]


def test_long_labels_are_cut() -> None:
    (target,) = targets(slices(endpoint("10.1.0.4", "vllm-0") | {"nodeName": "n" * 253}))
    assert target.labels["node"] == "n" * 200


def test_a_page_tells_how_to_ask_for_the_next() -> None:
    page = slices() | {"metadata": {"continue": "eyJ2Ijo", "remainingItemCount": 3}}
    assert read_page(json.dumps(page).encode()).metadata.token == "eyJ2Ijo"
    assert read_page(json.dumps(slices()).encode()).metadata.token == ""


def test_an_empty_list_is_an_answer() -> None:
    assert targets(slices(endpoints=None)) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"items": null}',
        b'{"items": [1]}',
        b"\xff",
        b'{"items": [], "x":' + b"[" * 9_999,
        json.dumps(slices(ports=[{"port": "8000"}])).encode(),
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the words are the parser's
        read_page(body)
