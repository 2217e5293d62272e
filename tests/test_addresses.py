"""Spellings are made by the rules of the RFCs named beside them; `socket.inet_aton` is the judge of legacy ones."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
import yarl
from hypothesis import example, given
from hypothesis import strategies as st

from webhook.addresses import NEVER, SPECIAL, AddressPolicy, meanings, parse_inet_aton, parse_url
from webhook.errors import AddressRefused

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "198.20.0.0",
    "2606:4700::1111",
]
CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "100::1",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "169.254.255.255",
    "100.100.100.200",
    "100.96.0.96",
    "168.63.129.16",
    "192.0.0.192",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fd00:100::100:200",
]


def policy(*networks: str) -> AddressPolicy:
    return AddressPolicy(tuple(ip_network(network) for network in networks))


def spellings(address: IPv4Address) -> dict[str, str]:
    """Write an IPv4 address in each way that IPv6 has for it, with public addresses wherever there is room."""
    n = int(address)
    public = int(IPv4Address("8.8.8.8"))
    a, b, c, d = address.packed
    return {
        "mapped, RFC 4291": f"::ffff:{address}",
        "mapped, in hex": str(IPv6Address(0xFFFF << 32 | n)),
        "compatible, RFC 4291": str(IPv6Address(n)),
        "translated, RFC 2765": f"::ffff:0:{address}",
        "NAT64, RFC 6052": f"64:ff9b::{address}",
        "local NAT64, /96": f"64:ff9b:1::{address}",
        "local NAT64, /48": f"64:ff9b:1:{a << 8 | b:x}:{c:x}:{d << 8:x}:808:808",
        "local NAT64, /56": f"64:ff9b:1:ff{a:02x}:{b:x}:{c << 8 | d:x}:808:808",
        "local NAT64, /64": f"64:ff9b:1:ffff:{a:x}:{b << 8 | c:x}:{d << 8 | 8:x}:808",
        "6to4, RFC 3056": str(IPv6Address(0x2002 << 112 | n << 80 | 1)),
        "Teredo's server, RFC 4380": str(IPv6Address(0x2001 << 112 | n << 64 | ~public & 0xFFFFFFFF)),
        "Teredo's client": str(IPv6Address(0x2001 << 112 | public << 64 | ~n & 0xFFFFFFFF)),
        "ISATAP, RFC 5214": f"2606:4700::5efe:{address}",
        "ISATAP, with the global bit": f"2606:4700::200:5efe:{address}",
    }


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_open(address: str) -> None:
    AddressPolicy().check(address)


@pytest.mark.parametrize("address", [*CLOSED, *METADATA, "2001::1"])
def test_special_addresses_are_closed(address: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy().check(address)


@pytest.mark.parametrize("address", METADATA)
def test_metadata_stays_closed_where_everything_is_allowed(address: str) -> None:
    with pytest.raises(AddressRefused, match="never allowed"):
        AddressPolicy(EVERYTHING).check(address)


@pytest.mark.parametrize("address", METADATA)
def test_metadata_stays_closed_in_every_ipv6_spelling(address: str) -> None:
    if ":" not in address:
        for spelling in spellings(IPv4Address(address)).values():
            with pytest.raises(AddressRefused, match="never allowed"):
                AddressPolicy(EVERYTHING).check(spelling)


@pytest.mark.parametrize("address", CLOSED)
def test_special_addresses_open_where_their_network_is_allowed(address: str) -> None:
    AddressPolicy((ip_network(address),)).check(address)
    AddressPolicy((ip_network(address),)).check(address, plaintext=True)


@pytest.mark.parametrize(
    "address", ["::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:FFFF:127.0.0.1", "64:ff9b::7f00:1"]
)
def test_an_ipv6_spelling_of_an_allowed_address_is_allowed(address: str) -> None:
    policy("127.0.0.0/8").check(address, plaintext=True)
    with pytest.raises(AddressRefused):
        policy("10.0.0.0/8").check(address)


def test_allowing_an_ipv6_network_does_not_allow_the_ipv4_addresses_written_in_it() -> None:
    allowed = policy("::/0", "127.0.0.0/8")
    for spelling in spellings(IPv4Address("10.1.2.3")).values():
        with pytest.raises(AddressRefused, match=r"10\.1\.2\.3"):
            allowed.check(spelling)
    for spelling in spellings(IPv4Address("127.0.0.1")).values():
        allowed.check(spelling)


@pytest.mark.parametrize(
    "address", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2606:4700::5efe:8.8.8.8"]
)
def test_ipv6_spellings_of_public_addresses_are_open_where_they_lead_there(address: str) -> None:
    AddressPolicy().check(address)


def test_a_local_nat64_prefix_opens_with_its_own_network_only() -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy().check("64:ff9b:1::8.8.8.8")
    policy("64:ff9b:1::/48").check("64:ff9b:1::8.8.8.8")


@pytest.mark.parametrize("address", ["fe80::1%eth0", "::1%lo", "8.8.8.8%1", "fe80::1%25eth0"])
def test_zone_ids_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="zone"):
        AddressPolicy(EVERYTHING).check(address)


@pytest.mark.parametrize(
    "address", ["localhost", "", "0x7f.1", "2130706433", "127.1", "127.0.0.1.", "010.0.0.1", "[::1]", "1"]
)
def test_what_is_no_address_is_refused_since_it_would_be_looked_up_again(address: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy(EVERYTHING).check(address)


def test_plaintext_goes_to_allowed_networks_only() -> None:
    inside = policy("10.0.0.0/8", "93.184.216.0/24")
    inside.check("10.0.0.1", plaintext=True)
    inside.check("93.184.216.34", plaintext=True)
    inside.check("8.8.8.8")
    for address in ("8.8.8.8", "192.168.0.1", "::ffff:8.8.8.8", "2606:4700::1111", "2002:808:808::1"):
        with pytest.raises(AddressRefused):
            inside.check(address, plaintext=True)


@given(st.sampled_from([network for network, _ in (*NEVER, *SPECIAL) if network.version == 4]), st.data())
def test_no_ipv6_spelling_opens_a_closed_ipv4_address(network: object, data: st.DataObject) -> None:
    address = data.draw(st.ip_addresses(network=str(network)))
    assert isinstance(address, IPv4Address)
    for way, spelling in spellings(address).items():
        # at the other places of a /48, these mean that nothing is embedded there
        if way.startswith("local NAT64, /") and "/96" not in way and address.packed[0] in {0, *range(240, 256)}:
            continue
        if IPv6Address(spelling) in {IPv6Address("::"), IPv6Address("::1")}:
            continue
        assert address in meanings(IPv6Address(spelling)), way
        with pytest.raises(AddressRefused):
            AddressPolicy().check(spelling)


@given(st.ip_addresses(v=4))
def test_no_public_name_for_a_closed_address_by_numbers(address: IPv4Address) -> None:
    try:
        AddressPolicy().check(str(address))
    except AddressRefused:
        for url in legacy_urls(address):
            with pytest.raises(AddressRefused):
                AddressPolicy().check_url(url)
    else:
        for url in legacy_urls(address):
            AddressPolicy().check_url(url)


def legacy_urls(address: IPv4Address) -> list[str]:
    n = int(address)
    a, b, c, d = address.packed
    digits = {ord("0") + digit: 0xFF10 + digit for digit in range(10)}  # to their full width
    hosts = [
        *(f"{address}", f"{address}.", f"{n}", f"{n:#x}", f"0{n:o}", f"{n:#X}", f"0x00000{n:x}"),
        *(f"{a}.{n & 0xFFFFFF}", f"{a}.{b}.{n & 0xFFFF}", f"0{a:o}.{b:#x}.{n & 0xFFFF}."),
        *(f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        *(f"{a}\u3002{b}\uff0e{c}\uff61{d}", str(address).translate(digits), str(n).translate(digits)),
    ]
    return [f"https://{host}/hook" for host in hosts] + [f"https://[::ffff:{address}]:8443"]


def test_legacy_spellings_reach_the_address_that_was_judged() -> None:
    for url in legacy_urls(IPv4Address("127.0.0.1"))[:-1]:
        assert parse_url(url).raw_host == "127.0.0.1"
        policy("127.0.0.0/8").check_url(url.replace("https://", "http://"))


@given(st.from_regex(r"(0x|0X|0)?[0-9a-fA-F]{0,12}(\.(0x|0)?[0-9a-f]{0,4}){0,4}", fullmatch=True))
@example("0x")
@example("08.0.0.1")
@example("256.1")
@example("1.2.3.4.5")
@example("4294967296")
@example("0377.0377.0377.0377")
def test_inet_aton_is_read_as_the_system_reads_it(text: str) -> None:
    try:
        expected: IPv4Address | None = IPv4Address(socket.inet_aton(text))
    except OSError:
        expected = None
    try:
        found: IPv4Address | None = parse_inet_aton(text)
    except ValueError:
        found = None
    assert found == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hook?a=b",
        "HTTPS://Example.COM./x",
        "https://bücher.example/",
        "https://localhost/",
        "https://metadata.google.internal/",
        "https://a_b.example/",
        "https://1.example/",
        "https://[2606:4700::1111]/",
        "https://8.8.8.8/",
    ],
)
def test_names_and_public_addresses_are_taken_at_creation(url: str) -> None:
    AddressPolicy().check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *[
            "example.com",
            "//example.com",
            "ftp://example.com/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https:example.com",
            "https:/example.com",
            "https://",
            "https:///x",
            "https://:443/",
            "https://?x",
            "https://user@example.com/",
            "https://user:secret@example.com/",
            "https://@example.com/",
            "https://example.com#f",
            "https://example.com/#",
            "https://example.com:0/",
            "https://example.com:65536/",
            "https://example.com:/",
            "https://example.com:8x/",
            "https://example.com:-1/",
            "https://example.com:80:80/",
            "https://example.com\\@127.0.0.1/",
            "https:\\\\example.com",
            "https://127%2e0.0.1/",
            "https://%31%32%37.0.0.1/",
            "https://a..b/",
            "https://.a/",
            "https://a.b../",
            "https://-a.example/",
            "https://[::1",
            "https://::1/",
            "https://[fe80::1%25eth0]/",
            "https://[::1%lo]/",
            "https://[v1.x]/",
            "https://[]/",
            "https://[127.0.0.1]/",
            "https://[::1]x/",
            "https://x[::1]/",
            "https://a]b/",
            "https://256.1.1.1/",
            "https://1.2.3.4.5/",
            "https://0x/",
            "https://08.1/",
            "https://example.0x7f/",
            "https://example.1/",
            "https://4294967296/",
            "https://exam<ple.com/",
        ],
        *("", " https://example.com/", "https://exa mple.com/", "https://example.com/a b", "https://example.com/\n"),
        *("https://example.com/\r\nX: y", "https://example.com/\x00", "https://example.com/\t"),
        *("https://exa\u200dmple.com/", "https://example.com/\u2028", "https://example.com/\ud800"),
        *("https://example.com:\u0663/", "https://foo\uff0fbar/", "https://\uff20/", "https://xn--\u0301/"),
        *("https://\u0660.\u0660.\u0660.1/", "https://" + "a" * 64 + ".example/"),
        *("https://" + "a." * 130 + "example/", "https://example.com/" + "x" * 2048),
    ],
)
def test_malformed_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match=r"^The URL") as error:
        AddressPolicy(EVERYTHING).check_url(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://0/",
        "https://0x7f000001/",
        "https://①②⑦.0.0.1/",
        "https://[fd00:ec2::254]/",
        "https://168.63.129.16/",
        "https://192.168.1.1:8443/",
    ],
)
def test_closed_addresses_are_refused_at_creation(url: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy().check_url(url)


def test_plain_http_is_taken_for_allowed_networks_and_names_that_may_lead_there() -> None:
    inside = policy("127.0.0.0/8")
    inside.check_url("http://127.0.0.1:9000/hook")
    inside.check_url("http://localhost:9000/hook")
    inside.check_url("http://[::ffff:127.0.0.1]/hook")
    for url in ("http://8.8.8.8/", "http://[2606:4700::1111]/", "http://10.0.0.1/"):
        with pytest.raises(AddressRefused):
            inside.check_url(url)
    for url in ("http://example.com/", "http://localhost/", "http://127.0.0.1/", "http://8.8.8.8/"):
        with pytest.raises(AddressRefused):
            AddressPolicy().check_url(url)


def test_path_and_query_go_out_as_they_came() -> None:
    url = "https://example.com/a/../b%7E%2f;c=d?sig=%2B%3D+x&%zz=1&u=[1]|2"
    assert str(parse_url(url)) == url
    assert parse_url('https://example.com/ü"<>?q=日^`{}').raw_path_qs == "/%C3%BC%22%3C%3E?q=%E6%97%A5%5E%60%7B%7D"
    assert str(parse_url("https://example.com?x")) == "https://example.com/?x"


@given(st.text())
def test_any_text_is_a_url_or_a_value_error(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/", f"http://[{text}]:1", f"https://h:{text}"):
        try:
            parsed = parse_url(url)
        except ValueError:
            continue
        # what was checked is what is connected to, also when the URL is written out and read once more
        assert parsed.raw_host
        assert parsed.raw_user is parsed.raw_password is None
        assert parsed.raw_fragment == ""
        assert parsed.raw_host.isascii()
        assert yarl.URL(str(parsed)).raw_host == parsed.raw_host
        assert parse_url(str(parsed)) == parsed
